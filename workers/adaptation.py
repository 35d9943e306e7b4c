"""What the next attempt does differently because of how earlier ones failed. Pure; none of it changes what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.core.states import FailureReason

MAX_HALVINGS = 3


@dataclass(frozen=True, slots=True)
class Adaptation:
    """Fields of the plan that lessen an attempt's need for memory."""

    micro_batches: int = 1
    """Parts each batch is trained in."""
    loader_workers: int | None = None
    """Loader processes instead of the config's; None: as the config says."""


def adapt(earlier: Sequence[FailureReason | None], *, loader_workers: int) -> Adaptation:
    """Return how to run after attempts that ended for these reasons: fewer loaders, smaller parts of a batch."""
    halvings = min(earlier.count(FailureReason.OUT_OF_MEMORY), MAX_HALVINGS)
    fewer: int | None = None
    if FailureReason.SHARED_MEMORY in earlier:
        fewer = 0
    elif (times := earlier.count(FailureReason.HOST_OUT_OF_MEMORY)) > 0:
        fewer = loader_workers >> times
    return Adaptation(2**halvings, fewer if loader_workers else None)
