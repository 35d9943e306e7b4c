"""Turns an exception of a trainer into a reason and one sentence that a person can act on."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pydantic

from services.core.errors import PlatformError
from services.core.states import FailureReason

_LOWER = "lower data.batch_size or the image size"
_NO_MEMORY_TEXTS = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "Cannot allocate memory")
_GPU_TEXTS = ("CUDA error", "CUDA driver error", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "device-side assert")

_REASONS = {reason.value: reason for reason in FailureReason} | {
    "REQUEST_INVALID": FailureReason.SPEC_INVALID,
    "CHECKPOINT_MISMATCH": FailureReason.SPEC_INVALID,
    "NOT_FOUND": FailureReason.SPEC_INVALID,
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why the trainer ended."""

    reason: FailureReason
    message: str
    step: int | None = None


def diagnose(err: BaseException) -> Diagnosis:
    """Return the reason an exception stands for; what is not known is a crash."""
    reason, message = _judge(err)
    step = getattr(err, "step", None)
    return Diagnosis(reason, message, step if isinstance(step, int) else None)


def _judge(err: BaseException) -> tuple[FailureReason, str]:
    text = " ".join(str(err).split())
    name = type(err).__name__
    if isinstance(err, PlatformError):
        return _REASONS.get(err.reason, FailureReason.INTERNAL), text
    if isinstance(err, MemoryError) or name == "OutOfMemoryError" or any(part in text for part in _NO_MEMORY_TEXTS):
        return FailureReason.OUT_OF_MEMORY, f"The trainer ran out of memory: {_LOWER}. ({_cut(text) or name})"
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
        return FailureReason.DISK_FULL, "The worker's disk is full: free space there, or give it a larger state_dir."
    if isinstance(err, pydantic.ValidationError):
        return FailureReason.SPEC_INVALID, f"The config does not fit this worker's recipe: {_cut(_violations(err))}"
    if name == "AcceleratorError" or any(part in text for part in _GPU_TEXTS):
        return FailureReason.GPU_LOST, f"The GPU failed: look at it before more jobs run there. ({_cut(text)})"
    if "shared memory" in text or "shm" in text.split():
        return FailureReason.SHARED_MEMORY, f"Too little shared memory: set runtime.loader_workers to 0. ({_cut(text)})"
    return FailureReason.CRASH, f"The trainer crashed with {name}: {_cut(text)}. The log's last lines say where."


def _violations(err: pydantic.ValidationError) -> str:
    wrong = err.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join(part for part in (".".join(map(str, one["loc"])), one["msg"]) if part) for one in wrong)


def _cut(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
