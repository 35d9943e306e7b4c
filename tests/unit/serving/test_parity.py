from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.builders.toy_serving import CATALOG, write_toy_bundle
from workers.families.base import Golden
from workers.serving import parity
from workers.serving.bundle import BundleInvalid, Parts, open_bundle, read_parts
from workers.serving.export import Candidate, Rejection
from workers.serving.form import Form, load_eager
from workers.serving.parity import ParityFailed, choose, judge


def parts_of(directory: Path, **changes: float) -> Parts:
    return read_parts(write_toy_bundle(directory / "bundle", **changes), catalog=CATALOG)  # type: ignore[arg-type]


def eager(parts: Parts) -> Candidate:
    network = load_eager(parts.module, memory_format=torch.contiguous_format, device=torch.device("cpu"))
    return Candidate(Form.EAGER, network, None)


def test_the_network_of_the_trainer_passes(tmp_path):
    parts = parts_of(tmp_path)

    verdict = judge(parts.handler, eager(parts).network, parts.golden)

    assert verdict.passed
    assert verdict.differences["scores"] < 1e-4


def test_a_wrong_normalisation_is_caught(tmp_path):
    parts = parts_of(tmp_path, std=0.5)

    with pytest.raises(ParityFailed, match=r"eager: golden input 0 differs by \{'scores': 0\.\d+\}"):
        choose(parts.handler, parts.golden, [eager(parts)], [])


def test_a_serving_process_refuses_wrong_answers_too(tmp_path):
    served = open_bundle(write_toy_bundle(tmp_path / "bundle", std=0.5), catalog=CATALOG)

    with pytest.raises(BundleInvalid, match="golden input 0"):
        served.check()


def test_the_fastest_form_that_passes_is_taken_and_every_other_has_its_reason(tmp_path):
    parts = parts_of(tmp_path)
    right = eager(parts)

    def wrong(x: Tensor) -> Tensor:
        return torch.zeros(len(x), 3)

    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("illegal instruction, say")

    candidates = [Candidate(Form.AOTI_FP32, wrong, None), Candidate(Form.EXPORT, broken, None), right]
    choice = choose(parts.handler, parts.golden, candidates, [Rejection(Form.AOTI_BF16, "no compiler")])

    assert choice.candidate is right
    assert [(line["form"], "reason" in line) for line in choice.record] == [
        ("aoti_bf16", True),
        ("aoti_fp32", True),
        ("export", True),
        ("eager", False),
    ]
    json.dumps(choice.record, allow_nan=False)


def test_of_two_that_pass_the_faster_wins(tmp_path):
    parts = parts_of(tmp_path)
    quick = eager(parts)

    def slow(x: Tensor) -> Tensor:
        for _ in range(20):
            answer = quick.network(x)
        assert isinstance(answer, Tensor)
        return answer

    choice = choose(parts.handler, parts.golden, [Candidate(Form.AOTI_FP32, slow, None), quick], [])

    assert choice.candidate is quick


@pytest.mark.parametrize(("milliseconds", "chosen"), [(8.0, Form.AOTI_INT8), (9.0, Form.EAGER)])
def test_int8_must_be_worth_what_it_moves(tmp_path, monkeypatch, milliseconds, chosen):
    parts = parts_of(tmp_path)
    exact = eager(parts)
    monkeypatch.setattr(parity, "_probe", lambda *_: {Form.AOTI_INT8: milliseconds, Form.EAGER: 10.0})

    choice = choose(parts.handler, parts.golden, [Candidate(Form.AOTI_INT8, exact.network, None), exact], [])

    assert choice.candidate.form is chosen
    assert choice.milliseconds == (milliseconds if chosen is Form.AOTI_INT8 else 10.0)


def test_a_bundle_without_golden_inputs_proves_nothing(tmp_path):
    parts = parts_of(tmp_path)

    assert not judge(parts.handler, eager(parts).network, Golden((), ())).passed
