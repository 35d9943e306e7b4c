"""Local time. Leases use the database's clock; deadlines inside one process use the monotonic one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MonotonicClock = Callable[[], float]


@dataclass(slots=True)
class Deadline:
    """A point in monotonic time after which waiting ends."""

    seconds: float
    clock: MonotonicClock = time.monotonic
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = self.clock() + self.seconds

    @property
    def remaining(self) -> float:
        return max(0.0, self._end - self.clock())

    @property
    def is_over(self) -> bool:
        return self.clock() >= self._end
