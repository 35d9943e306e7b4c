"""A network that is asked about pictures of any size is served as it is, since stored forms are of one size."""

from __future__ import annotations

from pathlib import Path

from services.core.target import ServingTarget
from workers.families.base import Golden, ServingSpec
from workers.families.style.config import FastModel
from workers.families.style.handler import StyleHandler
from workers.families.style.network import TransformNetwork
from workers.serving.bundle import Parts
from workers.serving.export import Exporter
from workers.serving.form import Form


def test_no_form_of_one_size_is_built_for_it(tmp_path: Path) -> None:
    spec = ServingSpec((3, 32, 32), {"max_side": 64, "stride": 4})
    network = TransformNetwork(FastModel(width=4, residual_blocks=1)).eval()
    parts = Parts("style/fast", StyleHandler(spec), network, Golden((), ()))

    candidates, rejections = Exporter(parts, ServingTarget(), tmp_path).build(tuple(Form))

    assert [one.form for one in candidates] == [Form.EAGER]
    assert {one.form for one in rejections} == set(Form) - {Form.EAGER}
    assert all("inputs of any size" in one.reason for one in rejections)
    assert list(tmp_path.iterdir()) == []
