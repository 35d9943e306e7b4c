"""A batch trained in parts is the batch trained whole, but for rounding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from services.core.states import FailureReason
from tests.builders import training
from tests.builders.fault_config import CATALOG, NAME
from tests.builders.fault_recipe import pattern_config
from tests.builders.training import Outcome
from workers.engine import microbatch
from workers.engine.errors import OutOfMemory
from workers.engine.frames import FrameKind
from workers.failure import diagnose


def run(directory: Path, *, parts: int = 1, **sections: Any) -> Outcome:
    return training.attempt(directory, pattern_config(**sections), recipe=NAME, catalog=CATALOG, micro_batches=parts)


def tensors(outcome: Outcome) -> dict[str, torch.Tensor]:
    stored = outcome.checkpoint(12)
    return {f"{file}:{name}": value for file, found in stored.files.items() for name, value in found.items()}


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_a_batch_make_the_same_update(tmp_path: Path, parts: int) -> None:
    whole = run(tmp_path / "whole")
    cut = run(tmp_path / "cut", parts=parts, model={"most_rows": -(-8 // parts)})

    assert cut.error is None
    expected, found = tensors(whole), tensors(cut)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)
    assert cut.losses() == pytest.approx(whole.losses(), rel=1e-4)
    assert any(f"{parts} parts" in frame["text"] for frame in cut.log.of(FrameKind.LOG))


def test_a_lack_of_memory_says_into_how_many_parts_to_cut(tmp_path: Path) -> None:
    outcome = run(tmp_path, parts=2, model={"most_rows": 2})

    assert isinstance(outcome.error, OutOfMemory)
    found = diagnose(outcome.error)
    assert (found.reason, found.micro_batches, found.step) == (FailureReason.OUT_OF_MEMORY, 4, 0)


@pytest.mark.parametrize(
    ("parts", "model", "why"),
    [
        pytest.param(1, {"most_rows": 2, "is_divisible": False}, "cannot cut a batch", id="the recipe cannot"),
        pytest.param(8, {"most_rows": 0}, "single samples", id="a sample is too large"),
    ],
)
def test_where_parts_do_not_help_the_message_says_why(tmp_path: Path, parts: int, model: Any, why: str) -> None:
    faults = {"how": "exhaust", "at_step": 1} if not model["most_rows"] else {}
    outcome = run(tmp_path, parts=parts, model=model, faults=faults)

    assert isinstance(outcome.error, OutOfMemory)
    assert outcome.error.micro_batches is None
    assert why in str(outcome.error)
    assert "lower data.batch_size" in str(outcome.error)


@dataclass(frozen=True)
class Nested:
    images: torch.Tensor
    rest: tuple[Any, ...]


def test_a_batch_is_cut_through_all_it_is_made_of() -> None:
    batch = Nested(torch.arange(5), ({"boxes": torch.arange(10).view(5, 2)}, ["a", "b", "c", "d", "e"], None, 7))

    parts = microbatch.cut(batch, 2)

    assert [share for _, share in parts] == [0.4, 0.6]
    assert parts[1][0].images.tolist() == [2, 3, 4]
    assert parts[1][0].rest[0]["boxes"].tolist() == [[4, 5], [6, 7], [8, 9]]
    assert parts[1][0].rest[1:] == (["c", "d", "e"], None, 7)


def test_what_has_no_rows_is_not_cut() -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        microbatch.cut((torch.arange(4), torch.arange(5)), 2)
