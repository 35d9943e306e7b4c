"""Checkpoints off the step path: a copy in memory inside the step, everything else in threads of their own.

Optimizer state, two thirds of the bytes, changes only in `Optimizer.step`; so it is copied while the next forward
and backward run, and that step waits for the copy. One host buffer is reused from checkpoint to checkpoint, so
memory stays bounded: while it is still being written a due checkpoint waits a moment, then is put off to a later
step edge. A second buffer would cost another copy of the state to save at most one interval. The writer also looks
for weights that are not finite, before the rename that makes a checkpoint visible.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from workers.engine.errors import NonFiniteLoss
from workers.engine.state import DOCUMENT, OPTIM, Captured
from workers.engine.tensorfile import BITS, Array, FileDigest, sync_directory, write_bytes, write_tensors

_EXPONENT = {
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F800000,
    torch.float64: 0x7FF0000000000000,
}
Files = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint that is safely on disk under its final name."""

    step: int
    path: Path
    files: tuple[FileDigest, ...]
    stall_seconds: float
    write_seconds: float


class HostBuffer:
    """Host copies of tensors, page-locked where there is a CUDA device, kept between checkpoints."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, str], Tensor] = {}

    def reserve(self, files: Files) -> None:
        """Allocate the memory and touch every page of it, so that the first copy is as fast as the others."""
        for key, tensor in _flat(files):
            copy = _host_like(tensor)
            _bits(copy).fill(0)
            self._copies[key] = copy

    def fill(self, file: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return copies of a file's tensors as they are now; on CUDA they are queued before any later update."""
        for stale in [key for key in self._copies if key[0] == file and key[1] not in tensors]:
            del self._copies[stale]
        copies: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            copy = self._copies.get((file, name))
            if copy is None or not _is_alike(copy, tensor):
                copy = self._copies[file, name] = _host_like(tensor)
            copies[name] = copy
            _copy(copy, tensor)
        return copies


class Checkpointer:
    """Writes checkpoints of one attempt, one at a time, to `step-<n>.ready` directories in the spool."""

    def __init__(self, spool_dir: Path, on_written: Callable[[Written], None]) -> None:
        self._spool_dir = spool_dir
        self._on_written = on_written
        self._buffer = HostBuffer()
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-copier")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer", initializer=_lower_priority)
        self._copying: Future[dict[str, Tensor]] | None = None
        self._pending: Future[None] | None = None
        self._hooks: dict[int, RemovableHandle] = {}
        self._stall_seconds = 0.0

    def reserve(self, captured: Captured) -> None:
        """Prepare memory for states like this one, in the background."""
        self._pending = self._writer.submit(self._buffer.reserve, captured.files)

    def wait(self, *, timeout_seconds: float | None = None) -> bool:
        """Wait until the writer is free and return whether it is.

        Raises:
            NonFiniteLoss: the checkpoint being written held weights that are not finite.
            OSError: it could not be written.
        """
        if self._pending is not None:
            wait_for([self._pending], timeout=timeout_seconds)
            if not self._pending.done():
                return False
            finished, self._pending = self._pending, None
            finished.result()
        return True

    def raise_failure(self) -> None:
        """Raise what the writer ran into, if it did; never waits."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def submit(self, captured: Captured) -> None:
        """Copy the state and let the writer have it; the writer must be free.

        The optimizers' tensors may still be copied after this returns, until their next step.
        """
        self._hold_optimizers(captured.optimizers)
        late = {OPTIM} if _is_on_host(captured.files[OPTIM]) else set()
        copies = {name: self._buffer.fill(name, found) for name, found in captured.files.items() if name not in late}
        await_arrival = _arrival(captured.files)
        document = json.dumps(captured.document, separators=(",", ":"), sort_keys=True).encode()
        self._stall_seconds = time.perf_counter() - captured.began
        copying = self._copier.submit(self._buffer.fill, OPTIM, captured.files[OPTIM]) if late else None
        self._copying = copying

        def write() -> None:
            await_arrival()
            if copying is not None:
                copies[OPTIM] = copying.result()
            self._write(captured, copies, document)

        self._pending = self._writer.submit(write)

    def close(self) -> None:
        """End the threads after what they are doing."""
        self._copier.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        for hook in self._hooks.values():
            hook.remove()

    def _hold_optimizers(self, optimizers: Iterable[Optimizer]) -> None:
        for optimizer in optimizers:
            if id(optimizer) not in self._hooks:
                self._hooks[id(optimizer)] = optimizer.register_step_pre_hook(lambda *_: self._wait_for_copy())

    def _wait_for_copy(self) -> None:
        if self._copying is not None:
            start = time.perf_counter()
            wait_for([self._copying])
            self._copying = None
            self._stall_seconds += time.perf_counter() - start

    def _write(self, captured: Captured, copies: Files, document: bytes) -> None:
        start = time.perf_counter()
        partial = self._spool_dir / f"step-{captured.step}.tmp"
        ready = self._spool_dir / f"step-{captured.step}.ready"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            digests = _write_files(partial, captured, copies, document)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(ready, ignore_errors=True)
        partial.rename(ready)
        sync_directory(self._spool_dir)
        write_seconds = time.perf_counter() - start
        self._on_written(Written(captured.step, ready, tuple(digests), self._stall_seconds, write_seconds))


def _write_files(directory: Path, captured: Captured, copies: Files, document: bytes) -> list[FileDigest]:
    digests = []
    for file, tensors in copies.items():

        def check(name: str, bits: Array, file: str = file, tensors: Mapping[str, Tensor] = tensors) -> None:
            mask = _EXPONENT.get(tensors[name].dtype) if f"{file}:{name}" in captured.finite else None
            if mask is not None and bool(((bits & mask) == mask).any()):
                raise NonFiniteLoss(
                    f"the weight {name} is not a finite number after step {captured.step}: lower the learning rate",
                    step=captured.step,
                )

        digests.append(write_tensors(directory / file, tensors, check=check))
    digests.append(write_bytes(directory / DOCUMENT, iter([document])))
    sync_directory(directory)
    return digests


def _flat(files: Files) -> list[tuple[tuple[str, str], Tensor]]:
    return [((file, name), tensor) for file, tensors in files.items() for name, tensor in tensors.items()]


def _host_like(tensor: Tensor) -> Tensor:
    # The tensor's own memory format: a copy between equal strides runs at the speed of memory.
    return torch.empty_like(
        tensor, device="cpu", pin_memory=tensor.is_cuda, memory_format=torch.preserve_format, requires_grad=False
    )


def _is_alike(copy: Tensor, tensor: Tensor) -> bool:
    return copy.shape == tensor.shape and copy.dtype == tensor.dtype and copy.stride() == tensor.stride()


def _copy(copy: Tensor, tensor: Tensor) -> None:
    if tensor.is_cuda:
        copy.copy_(tensor, non_blocking=True)
    else:
        # By way of numpy: one thread, without the interpreter's lock. Two OpenMP threads copy twice as fast on idle
        # cores, and eight times slower beside any other busy process. The identity on integers copies with vector
        # instructions; np.copyto, which is memcpy, takes a fifth longer.
        np.positive(_bits(tensor), out=_bits(copy))


def _bits(tensor: Tensor) -> Array:
    bits: Array = tensor.detach().view(BITS[tensor.element_size()]).numpy()
    return bits


def _is_on_host(tensors: Mapping[str, Tensor]) -> bool:
    return not any(tensor.is_cuda for tensor in tensors.values())


def _arrival(files: Files) -> Callable[[], None]:
    """Return what waits until copies queued so far have arrived; called in the writer thread."""
    if all(_is_on_host(tensors) for tensors in files.values()):
        return lambda: None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event.synchronize


def _lower_priority() -> None:
    """Let the trainer's threads go first: the writer needs one pass over the state, not speed.

    Not last of all: beside one busy neighbour on two cores a small state took 0.6 s to reach the disk at 19, which are
    steps to do again after a kill, and 0.1 s at 10.
    """
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, 10)
    with suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
