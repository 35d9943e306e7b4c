"""What can go wrong in training itself."""

from __future__ import annotations

from services.core.errors import Code, PlatformError
from services.core.states import FailureReason


class NonFiniteLoss(PlatformError):
    """The loss or a weight is no longer a finite number."""

    code = Code.FAILED_PRECONDITION
    reason = FailureReason.NON_FINITE_LOSS.value

    def __init__(self, message: str | None = None, *, step: int) -> None:
        super().__init__(message)
        self.step = step


class CheckpointMismatch(PlatformError):
    """The checkpoint does not fit the networks this config builds."""

    code = Code.FAILED_PRECONDITION
    reason = "CHECKPOINT_MISMATCH"


class StateUnsupported(PlatformError):
    """The recipe keeps state that a checkpoint cannot hold without pickling."""
