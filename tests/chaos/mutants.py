"""Broken versions of the protocol, each of which the checker of its invariant must catch.

A mutant patches the product's own functions while the simulation runs; the more it is like a mistake
somebody could make, the better. `run` answers with rows for `chaos.json`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.core.ids import new_id
from services.db import (
    checkpoints,
    control,
    events,
    fence,
    garbage,
    job_rows,
    leases,
    models,
    outbox,
    reaper,
    schedule,
    transitions,
)
from services.db import tables as t
from services.db.job_records import Lease
from services.db.types import now
from tests.simulation import worker
from tests.simulation.plan import Fault, Plan
from tests.simulation.run import simulate

SEEDS = 8
SIZES = Plan(seed=0, workers=3, controllers=2, jobs=5, projects=2)

Patches = Callable[[], list[Any]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake, the invariant that it breaks, and how to make it."""

    name: str
    invariant: str
    patches: Patches
    without: frozenset[Fault] = frozenset()
    """Faults left out of its runs, where they would hide the mistake."""

    def find(self, seeds: int = SEEDS) -> int | None:
        """Return the first seed at which the checker speaks of the mutant's invariant; None: it never does."""
        for seed in range(seeds):
            plan = replace(SIZES, seed=seed, faults=frozenset(Fault) - self.without)
            with self.applied():
                found = simulate(plan).violations
            if any(_code(text) == self.invariant for text in found):
                return seed
        return None

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for one in self.patches():
                stack.enter_context(one)
            yield


def run(*, seeds: int = SEEDS) -> list[dict[str, Any]]:
    """Return one row a mutant: name, invariant, whether the checker caught it, and at which seed."""
    rows = []
    for mutant in MUTANTS:
        seed = mutant.find(seeds)
        rows.append({"name": mutant.name, "invariant": mutant.invariant, "caught": seed is not None, "seed": seed})
    return rows


def _code(text: str) -> str:
    """Return the invariant that a violation names."""
    return text.rsplit("job ", 1)[-1].split(": ")[-2].split()[-1] if text.startswith("job ") else text.split(":")[0]
