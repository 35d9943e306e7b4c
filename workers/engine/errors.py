"""What can go wrong in training itself."""

from __future__ import annotations

from services.core.errors import Code, PlatformError
from services.core.states import FailureReason

LOADER_SIGNAL = "loader_signal"
"""Attribute of an exception: the number of the signal that ended a loader process."""

_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "Cannot allocate memory")


def is_out_of_memory(err: BaseException) -> bool:
    """Tell whether an exception of Python, torch on a CPU or torch on a GPU means that memory ran out."""
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        return True
    return any(part in str(err) for part in _NO_MEMORY)


class NonFiniteLoss(PlatformError):
    """The loss or a weight is no longer a finite number."""

    code = Code.FAILED_PRECONDITION
    reason = FailureReason.NON_FINITE_LOSS.value

    def __init__(self, message: str | None = None, *, step: int) -> None:
        super().__init__(message)
        self.step = step


class OutOfMemory(PlatformError):
    """The device has not the memory for a step."""

    code = Code.RESOURCE_EXHAUSTED
    reason = FailureReason.OUT_OF_MEMORY.value

    def __init__(self, message: str | None = None, *, step: int, micro_batches: int | None) -> None:
        super().__init__(message)
        self.step = step
        self.micro_batches = micro_batches
        """Into how many parts to cut a batch in the next attempt; None: that would not help."""


class ConfigUnbuildable(PlatformError):
    """The networks cannot be built from this config and this dataset."""

    code = Code.FAILED_PRECONDITION
    reason = FailureReason.SPEC_INVALID.value


class CheckpointMismatch(PlatformError):
    """The checkpoint does not fit the networks this config builds."""

    code = Code.FAILED_PRECONDITION
    reason = "CHECKPOINT_MISMATCH"


class StateUnsupported(PlatformError):
    """The recipe keeps state that a checkpoint cannot hold without pickling."""
