"""Checkpoints off the step path: a copy in memory inside the step, everything else in a writer thread.

One host buffer is reused from checkpoint to checkpoint, so memory stays bounded: while it is still being
written a due checkpoint waits a moment, then is put off to a later step edge. A second buffer would cost
another copy of the state to save at most one interval. The writer also looks for weights that are not
finite, before the rename that makes a checkpoint visible.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from workers.engine.errors import NonFiniteLoss
from workers.engine.state import DOCUMENT, Captured
from workers.engine.tensorfile import Array, FileDigest, sync_directory, write_bytes, write_tensors

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
    """Host copies of a state's tensors, page-locked where there is a CUDA device, kept between checkpoints."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, str], Tensor] = {}

    def reserve(self, files: Files) -> None:
        """Allocate the memory and touch every page of it, so that the first copy is as fast as the others."""
        for key, tensor in _flat(files):
            copy = _host_like(tensor)
            _touch(copy)
            self._copies[key] = copy

    def fill(self, files: Files) -> dict[str, dict[str, Tensor]]:
        """Copy the tensors as they are now; on CUDA the copies are queued before any later update."""
        sources = dict(_flat(files))
        for key in self._copies.keys() - sources.keys():
            del self._copies[key]
        for key, tensor in sources.items():
            copy = self._copies.get(key)
            if copy is None or not _is_alike(copy, tensor):
                self._copies[key] = _host_like(tensor)
        with torch.no_grad():
            torch._foreach_copy_([self._copies[key] for key in sources], list(sources.values()), non_blocking=True)
        return {file: {name: self._copies[file, name] for name in tensors} for file, tensors in files.items()}


class Checkpointer:
    """Writes checkpoints of one attempt, one at a time, to `step-<n>.ready` directories in the spool."""

    def __init__(self, spool_dir: Path, on_written: Callable[[Written], None]) -> None:
        self._spool_dir = spool_dir
        self._on_written = on_written
        self._buffer = HostBuffer()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer", initializer=_lower_priority)
        self._pending: Future[None] | None = None

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
        """Copy the state and let the writer have it; the writer must be free."""
        start = time.perf_counter()
        copies = self._buffer.fill(captured.files)
        is_copied = _copies_done(captured.files)
        document = json.dumps(captured.document, separators=(",", ":"), sort_keys=True).encode()
        stall_seconds = time.perf_counter() - start
        self._pending = self._writer.submit(lambda: self._write(captured, copies, document, is_copied, stall_seconds))

    def close(self) -> None:
        """End the writer thread after what it is writing."""
        self._writer.shutdown(wait=True)

    def _write(
        self, captured: Captured, copies: Files, document: bytes, is_copied: Callable[[], None], stall_seconds: float
    ) -> None:
        start = time.perf_counter()
        is_copied()
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
        self._on_written(Written(captured.step, ready, tuple(digests), stall_seconds, write_seconds))


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


def _touch(copy: Tensor) -> None:
    # numpy fills with one thread and without the interpreter's lock
    torch.empty(0, dtype=torch.uint8).set_(copy.untyped_storage()).numpy().fill(0)


def _copies_done(files: Files) -> Callable[[], None]:
    """Return what waits until copies queued so far have arrived; called in the writer thread."""
    if not any(tensor.is_cuda for _, tensor in _flat(files)):
        return lambda: None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event.synchronize


def _lower_priority() -> None:
    """Let the trainer's threads go first: the writer needs one pass over the state, not speed."""
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, 19)
    with suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
