from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from services.core.target import ServingTarget
from tests.builders.text_networks import Yard, language_model, transformer, word_vectors
from workers.families.base import Golden
from workers.serving.bundle import Parts
from workers.serving.export import Exporter
from workers.serving.form import Form
from workers.serving.parity import choose

SERVED: dict[str, Callable[[], Yard]] = {
    "lstm": language_model,
    "gru": lambda: language_model("gru"),
    "words": lambda: word_vectors([[1.0, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]]),
}


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
@pytest.mark.parametrize("name", SERVED)
def test_what_serves_can_be_exported_as_a_row_of_numbers(name: str) -> None:
    yard = SERVED[name]()
    (size,) = yard.handler.spec.input_shape
    row = torch.zeros(1, size)
    row[:, 1::2] = torch.arange(row[:, 1::2].numel()) % 5

    with torch.no_grad():
        program = torch.export.export(yard.module, (torch.zeros(1, size),)).module()
        torch.testing.assert_close(program(row), yard.module(row))


def test_the_transformer_searches_in_its_network_which_is_served_as_it_is(tmp_path: Path) -> None:
    yard, texts = transformer(), ["abc", "fed", "a"]
    bodies = tuple(json.dumps({"instances": [{"text": text}]}).encode() for text in texts)
    golden = Golden(bodies, tuple(yard.one(text=text) for text in texts))
    parts = Parts("text/transformer", yard.handler, yard.module, golden)

    candidates, rejections = Exporter(parts, ServingTarget(), tmp_path).build(tuple(Form))
    choice = choose(yard.handler, golden, candidates, rejections)

    assert [one.form for one in candidates] == [Form.EAGER]
    assert all("inputs of any size" in one.reason for one in rejections)
    assert choice.candidate.form is Form.EAGER
    assert choice.differences == {"score": 0.0}
