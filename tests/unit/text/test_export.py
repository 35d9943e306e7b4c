from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.builders.text_networks import Yard, language_model, transformer, word_vectors

SERVED: dict[str, Callable[[], Yard]] = {
    "lstm": language_model,
    "gru": lambda: language_model("gru"),
    "transformer": transformer,
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
