"""Turns an exception of a trainer, or of another child of the worker, into a reason and one sentence that a person can act on."""

from __future__ import annotations

import errno
import re
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import pydantic

from services.core.errors import PlatformError
from services.core.states import FailureReason
from workers.engine.errors import LOADER_SIGNAL, is_out_of_memory

_MORE_MEMORY = {
    "trainer": "lower data.batch_size or the image size",
    "build": "give the worker more, or let fewer jobs run beside it",
}
_LOADER_DIED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:exited unexpectedly|is killed by signal: ([\w ]+))"
)
_FROM_LOADER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\s+Original Traceback")
_BAD_IMAGE = ("UnidentifiedImageError", "DecompressionBombError", "DecompressionBombWarning", "ImageInvalid")
_BAD_IMAGE_TEXTS = ("image file is truncated", "broken data stream", "cannot identify image file", "truncated JPEG")
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
    micro_batches: int | None = None
    """Into how many parts the next attempt should cut a batch; None where that would not help."""
    is_loader: bool = False
    """Whether a loader process died: the kernel may have killed it for memory."""
    is_explained: bool = False
    """Whether the message says it all: the place in our code where it was noticed would tell a person nothing."""


def diagnose(err: BaseException, *, who: Literal["trainer", "build"] = "trainer") -> Diagnosis:
    """Return the reason an exception stands for; what is not known is a crash."""
    reason, message = _judge(err, who)
    step, micro_batches = getattr(err, "step", None), getattr(err, "micro_batches", None)
    return Diagnosis(
        reason,
        message,
        step if isinstance(step, int) else None,
        micro_batches if isinstance(micro_batches, int) else None,
        is_loader=_loader_death(err) is not None,
        is_explained=_is_explained(err, reason),
    )


def last_words(err: BaseException, diagnosis: Diagnosis) -> str:
    """Return what belongs in the log beside the message: the traceback, or of an explained failure just its cause."""
    if not diagnosis.is_explained:
        return "".join(traceback.format_exception(err))
    cause = err.__cause__
    if cause is None or _text(cause) in diagnosis.message:
        return ""
    return "".join(traceback.format_exception_only(cause))


def write_log(text: str) -> None:
    """Write to the attempt's log what it takes: on a full disk nothing, which must not hide the failure itself."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _is_explained(err: BaseException, reason: FailureReason) -> bool:
    """Tell whether it was raised with its reason; what is guessed from an exception's words is not."""
    is_typed = isinstance(err, PlatformError | pydantic.ValidationError)
    return is_typed and reason not in (FailureReason.CRASH, FailureReason.INTERNAL)


def _judge(err: BaseException, who: str) -> tuple[FailureReason, str]:
    text, name = _text(err), type(err).__name__
    if isinstance(err, PlatformError):
        return _REASONS.get(err.reason, FailureReason.INTERNAL), text
    if is_out_of_memory(err):
        return FailureReason.OUT_OF_MEMORY, f"The {who} ran out of memory: {_MORE_MEMORY[who]}. ({_cut(text) or name})"
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return FailureReason.DISK_FULL, "The worker's disk is full: free space there, or give it a larger state_dir."
    if isinstance(err, pydantic.ValidationError):
        return FailureReason.SPEC_INVALID, f"The config does not fit this worker's recipe: {_cut(_violations(err))}"
    if name == "AcceleratorError" or any(part in text for part in _GPU_TEXTS):
        return FailureReason.GPU_LOST, f"The GPU failed: look at it before more jobs run there. ({_cut(text)})"
    if name in _BAD_IMAGE or any(part in text for part in _BAD_IMAGE_TEXTS):
        return FailureReason.INVALID_DATASET, f"A stored image cannot be read: import the dataset again. ({_cut(text)})"
    how = _loader_death(err)
    if "shared memory" in text or "shm" in text.split() or (how or "").endswith("Bus error"):
        return FailureReason.SHARED_MEMORY, f"Too little shared memory: set runtime.loader_workers to 0. ({_cut(text)})"
    if how is not None:
        return FailureReason.CRASH, f"A loader process {how}: the log may say why; runtime.loader_workers 0 needs none."
    return FailureReason.CRASH, f"The {who} crashed with {name}: {_cut(text)}. The log's last lines say where."


def _text(err: BaseException) -> str:
    """Return what an exception says on one line, without the traceback that DataLoader puts before a loader's words."""
    text = str(err)
    if _FROM_LOADER.match(text):
        text = text.rpartition(f"{type(err).__name__}: ")[2]
    return " ".join(text.split())


def _loader_death(err: BaseException) -> str | None:
    """Return how a loader process ended, if that is what the exception or its cause tells."""
    found = [_LOADER_DIED.search(str(one)) for one in (err, err.__cause__, err.__context__) if one is not None]
    deaths = [death for death in found if death is not None]
    number = getattr(err, LOADER_SIGNAL, None)
    if not deaths and number is None:
        return None
    name = next((death[1] for death in deaths if death[1]), None)
    if name is None and number is not None:
        name = signal.strsignal(number)
    return f"was killed: {name}" if name else "ended unexpectedly"


def _violations(err: pydantic.ValidationError) -> str:
    wrong = err.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join(part for part in (".".join(map(str, one["loc"])), one["msg"]) if part) for one in wrong)


def _cut(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
