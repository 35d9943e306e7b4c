"""One row of the fault matrix: what is done to the platform, the bar it must hold, and how it is measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of a row showed."""

    value: dict[str, Any]
    passed: bool
    seeds: Sequence[int] = ()


@dataclass(slots=True)
class Stage:
    """What a row runs with: a directory of its own, how much to do, and where to say what happens."""

    directory: Path
    is_short: bool = False
    """Whether only a taste is wanted, for the default tests."""
    seeds: int | None = None
    """Repetitions asked for; None: as many as the row's bar says."""
    say: Callable[[str], None] = field(default=print)
    violations: list[str] = field(default_factory=list)
    """What the invariant checker found in any platform of this row."""

    def count(self, full: int, *, short: int = 2) -> int:
        """Return how often to do something whose bar names `full` times."""
        return self.seeds or (short if self.is_short else full)

    def rng(self, purpose: str, seed: int) -> random.Random:
        return random.Random(f"{purpose}:{seed}")


@dataclass(frozen=True, slots=True)
class Row:
    """A row by its number in the matrix."""

    number: int
    fault: str
    bar: str
    run: Callable[[Stage], Result]
    needs: tuple[str, ...] = ()
    """Servers of others it starts: redis, postgres, minio, torchserve."""


class Registry:
    """Collects the rows of a module as they are defined."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def row(
        self, number: int, fault: str, bar: str, *, needs: tuple[str, ...] = ()
    ) -> Callable[[Callable[[Stage], Result]], Callable[[Stage], Result]]:
        def add(run: Callable[[Stage], Result]) -> Callable[[Stage], Result]:
            self.rows.append(Row(number, fault, bar, run, needs))
            return run

        return add
