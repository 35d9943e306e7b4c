"""How the loop learns that it should stop."""

from __future__ import annotations

from typing import Protocol


class StopSignal(Protocol):
    """Asked at every step edge; once it says yes, the loop saves a checkpoint and leaves."""

    def is_set(self) -> bool: ...
