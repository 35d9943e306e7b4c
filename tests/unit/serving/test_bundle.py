from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from services.core.target import ServingTarget
from tests.builders.toy_serving import CATALOG, write_toy_bundle
from workers.serving.bundle import (
    SERVING_FILE,
    BundleInvalid,
    ServingRecord,
    ThreadsMismatch,
    open_bundle,
    read_record,
)
from workers.serving.form import Form


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "bundle")


def test_a_plain_bundle_is_served_eagerly(bundle):
    served = open_bundle(bundle, catalog=CATALOG)

    served.check(count=4)
    assert served.form is Form.EAGER


def test_a_network_for_other_threads_is_not_opened(bundle):
    record = ServingRecord(form=Form.AOTI_FP32, target=ServingTarget(threads=torch.get_num_threads() + 1))
    (bundle / SERVING_FILE).write_bytes(record.to_json())

    with pytest.raises(ThreadsMismatch):
        open_bundle(bundle, catalog=CATALOG)


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param({"instruction_sets": ("avx9000",)}, id="instructions this processor lacks"),
        pytest.param({"torch": "1.0.0"}, id="another torch"),
    ],
)
def test_machine_code_from_elsewhere_is_not_even_loaded(bundle, elsewhere):
    here = ServingRecord(
        form=Form.AOTI_FP32, target=ServingTarget(threads=torch.get_num_threads()), torch=str(torch.__version__)
    )
    (bundle / SERVING_FILE).write_bytes(dataclasses.replace(here, **elsewhere).to_json())

    assert open_bundle(bundle, catalog=CATALOG).form is Form.EAGER


def test_the_record_survives_its_file(tmp_path):
    record = ServingRecord(
        form=Form.EXPORT,
        target=ServingTarget("cpu", 2),
        instruction_sets=("avx2",),
        torch="2.15.0",
        model={"name": "m", "version": 3},
        parity={"scores": 0.001},
        candidates=({"form": "eager", "milliseconds": 2.0},),
        smoke={"input": "golden/000.png", "answer": {}},
    )
    (tmp_path / SERVING_FILE).write_bytes(record.to_json())

    assert read_record(tmp_path) == record


def test_a_record_names_a_precision_only_where_one_was_asked_for(tmp_path):
    plain, rounded = (ServingRecord(target=ServingTarget(precision=name)) for name in ("auto", "int8"))
    written = [json.loads(record.to_json())["target"] for record in (plain, rounded)]

    assert written == [{"device": "cpu", "threads": 1}, {"device": "cpu", "threads": 1, "precision": "int8"}]
    for record in (plain, rounded):
        assert ServingRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda path: (path / "weights.safetensors").write_bytes(b"x" * 64), id="damaged weights"),
        pytest.param(lambda path: (path / "golden" / "000.png").unlink(), id="fewer inputs than answers"),
        pytest.param(lambda path: (path / "bundle.json").write_text("{}"), id="no recipe"),
        pytest.param(lambda path: (path / "bundle.json").write_text(json.dumps({"recipe": "no/such"})), id="unknown"),
    ],
)
def test_a_damaged_bundle_says_so(bundle, break_it):
    break_it(bundle)

    with pytest.raises(BundleInvalid):
        open_bundle(bundle, catalog=CATALOG)
