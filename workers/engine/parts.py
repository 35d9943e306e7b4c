"""A process's rows of every batch, as a source of their own."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from workers.engine.microbatch import cut
from workers.engine.parallel import Parallel
from workers.families.base import BatchSource


@runtime_checkable
class DivisibleSource(Protocol):
    """A source that makes some rows of a batch without the others: the same as if it had made all."""

    def rows(self, step: int, rows: slice) -> Any: ...


class PartSource:
    """The batches of `source`, cut to one process's rows; where the source cannot, made whole and then cut."""

    def __init__(self, source: BatchSource[Any], parallel: Parallel) -> None:
        self.batch_size = parallel.rows.stop - parallel.rows.start
        self.steps_per_epoch = source.steps_per_epoch
        self._source = source
        self._parallel = parallel

    def batch(self, step: int) -> Any:
        if isinstance(self._source, DivisibleSource):
            return self._source.rows(step, self._parallel.rows)
        crew = self._parallel.crew
        return cut(self._source.batch(step), crew.size)[crew.rank][0]


def part_of(source: BatchSource[Any], parallel: Parallel) -> BatchSource[Any]:
    """Return what this process trains on: the source itself where it is alone."""
    return source if parallel.crew.is_alone else PartSource(source, parallel)
