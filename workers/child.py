"""A trainer's first and last lines: ties it to its parents, gives it its share of the machine, runs its plan.

Entered after the fork, with one thread and torch imported. Whatever goes wrong ends as one failure frame with a
reason and a sentence to act on, and as a traceback in the log where these do not say it all; the supervisor judges the
rest by how the process ended.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from workers import allocator, process
from workers.engine.frames import FrameKind, FrameWriter
from workers.failure import Diagnosis, diagnose, last_words, write_log
from workers.plan import LOG_NAME, PLAN_NAME, read_plan

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
DUMP_SIGNAL = signal.SIGUSR1
"""Makes a trainer write the stacks of all its threads to its log."""

_MAX_TRACEBACK = 64 * 1024


class StopFlag:
    """Set by a signal; the engine looks at it between two steps."""

    def __init__(self) -> None:
        # A plain attribute: a lock, and so threading.Event, may deadlock inside a signal handler.
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def listen(self, number: signal.Signals) -> None:
        signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        self._is_set = True


def main(attempt_dir: Path, frames_fd: int, watch_fd: int, *, parent_pid: int) -> int:
    """Run the plan of an attempt and return the exit code; the caller ends the process with it."""
    os.setsid()
    process.die_with_parent(parent_pid)
    _settle(attempt_dir)
    stop = _listen(watch_fd)
    frames = FrameWriter(frames_fd)
    plan: dict[str, Any] = {}
    try:
        plan = read_plan(attempt_dir / PLAN_NAME)
        allocator.keep_freed_memory(allocator.TRAINING_BYTES)
        _take_share(int(plan["threads"]))
        _MODES[plan["mode"]](plan, frames, stop)
    except BaseException as err:  # noqa: BLE001 - the process ends here, and its supervisor must learn why
        diagnosis = diagnose(err, who="trainer" if plan.get("mode", "train") == "train" else "build")
        write_log(last_words(err, diagnosis))
        _tell(frames, diagnosis)
        return 1
    return 0


def _settle(attempt_dir: Path) -> None:
    # The working directory marks every process of the attempt for the sweep after a crash of the worker.
    os.chdir(attempt_dir)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    null_fd = os.open(os.devnull, os.O_RDONLY)
    log_fd = os.open(attempt_dir / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null_fd, 0), (log_fd, 1), (log_fd, 2)):
        os.dup2(source, target)
    os.close(null_fd)
    os.close(log_fd)
    faulthandler.enable(sys.stderr)
    faulthandler.register(DUMP_SIGNAL, file=sys.stderr, all_threads=True)


def _listen(watch_fd: int) -> StopFlag:
    stop = StopFlag()
    for number in STOP_SIGNALS:
        stop.listen(number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(target=_die_at_end_of, args=(watch_fd,), name="watch", daemon=True).start()
    return stop


def _die_at_end_of(watch_fd: int) -> None:
    """Kill the whole group when the worker's end of the pipe closes: loader processes outlive a death signal."""
    while os.read(watch_fd, 1):
        pass
    process.kill_group(os.getpgrp())


def _take_share(threads: int) -> None:
    import torch

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def failure_fields(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the fields of a failure frame; called while the exception is handled."""
    return {
        "reason": diagnosis.reason,
        "message": diagnosis.message,
        "traceback": traceback.format_exc()[-_MAX_TRACEBACK:],
        "step": diagnosis.step,
        "micro_batches": diagnosis.micro_batches,
        "is_loader": diagnosis.is_loader,
    }


def _tell(frames: FrameWriter, diagnosis: Diagnosis) -> None:
    try:
        frames.write(FrameKind.FAILURE, **failure_fields(diagnosis))
    except OSError:
        # Nobody reads any more; the traceback is in the log.
        write_log(traceback.format_exc())


def _train(plan: Mapping[str, Any], frames: FrameWriter, stop: StopFlag) -> None:
    if "devices" in plan:
        import_module("workers.launch").launch(plan, frames, stop)
    else:
        import_module("workers.engine.run").train(plan, frames, stop)


def _export(plan: Mapping[str, Any], frames: FrameWriter, _: StopFlag) -> None:
    import_module("workers.serving.build").build_archive(plan, frames)


def _package(plan: Mapping[str, Any], frames: FrameWriter, _: StopFlag) -> None:
    import_module("workers.engine.run").package_checkpoint(plan, frames)


_MODES: dict[str, Callable[[Mapping[str, Any], FrameWriter, StopFlag], None]] = {
    "train": _train,
    "export": _export,
    "package_checkpoint": _package,
}
