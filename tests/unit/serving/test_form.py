from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.builders.toy_serving import CATALOG, ToyNetwork, write_toy_bundle
from workers.serving import export
from workers.serving.bundle import Target, read_parts
from workers.serving.export import Exporter
from workers.serving.form import Form, LowPrecision, load_eager, memory_format_of

CPU = torch.device("cpu")


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((1, 2, 3)), x


def test_convolutions_over_images_are_channels_last_and_nothing_else_is():
    assert memory_format_of(ToyNetwork(4), (3, 8, 8)) is torch.channels_last
    assert memory_format_of(ToyNetwork(4), (8,)) is torch.contiguous_format
    assert memory_format_of(nn.Linear(4, 4), (3, 8, 8)) is torch.contiguous_format


def test_low_precision_answers_nearly_the_same_in_fp32():
    torch.manual_seed(0)
    network = ToyNetwork(4).eval()
    x = torch.randn(2, 3, 16, 16)
    exact = network(x)

    rough = LowPrecision(network)(x)

    assert rough.dtype is torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)


def test_a_network_of_several_outputs_keeps_them():
    network = load_eager(TwoOutputs(), memory_format=torch.contiguous_format, device=CPU)

    means, images = network(torch.ones(2, 3, 4, 4))

    assert means.shape == (2,)
    assert images.shape == (2, 3, 4, 4)


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_answers_batches_like_the_eager_network(tmp_path):
    parts = read_parts(write_toy_bundle(tmp_path / "bundle"), catalog=CATALOG)
    x = torch.randn(3, *parts.spec.input_shape)

    (exported, eager), _ = Exporter(parts, Target(), tmp_path).build((Form.EXPORT, Form.EAGER))

    torch.testing.assert_close(exported.network(x), eager.network(x))


def test_a_form_that_cannot_be_built_here_is_rejected_with_its_reason(tmp_path: Path, monkeypatch):
    parts = read_parts(write_toy_bundle(tmp_path / "bundle"), catalog=CATALOG)
    monkeypatch.setattr(export.shutil, "which", lambda name: None)

    candidates, rejections = Exporter(parts, Target(), tmp_path).build((Form.AOTI_FP32, Form.EAGER))

    assert [candidate.form for candidate in candidates] == [Form.EAGER]
    assert [(one.form, one.reason) for one in rejections] == [(Form.AOTI_FP32, "no C++ compiler (g++) on this host")]
