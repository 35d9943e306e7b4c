"""The warm parent: imports torch and every recipe once, then forks a child for each attempt in milliseconds.

What only few children need comes once nobody has asked for a child for a while, so that no first job waits for it.

It has one thread and never touches CUDA, or its children could not be trusted. It ends with its worker: by the
kernel's parent-death signal, and by the end of its control socket. `python -m workers.warm --control-fd N`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import structlog

from services.core.loading import loading
from services.core.log import configure_logging
from workers import child, process
from workers.engine import curves
from workers.families.catalog import CATALOG

log = structlog.get_logger(__name__)

MAX_REQUEST_BYTES = 1 << 16
REQUEST_FDS = 3
"""Beside each request travel the frames pipe, the watch pipe and the connection to report on."""

IDLE_SECONDS = 60.0

_ENGINE = (
    "torch",
    "torchvision",
    "torchvision.transforms.v2",
    "safetensors.torch",
    "workers.engine.run",
)
_PICTURES = ("matplotlib.figure", "matplotlib.backends.backend_agg")
"""For the curves at the end of a training, where they are installed."""
_LATER = ("torch._dynamo.utils", "timm")
"""The compiler, which exports need, and networks that few ask for."""


@dataclass(slots=True)
class _Running:
    pid: int
    pidfd: int
    report: socket.socket


class WarmParent:
    """Answers requests for children until its control socket ends."""

    def __init__(
        self, control: socket.socket, *, later: Sequence[str] = _LATER, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        """`later` are the modules to import once no child runs and nobody has asked for one for `idle_seconds`."""
        self._control = control
        self._later = tuple(later)
        self._idle_seconds = idle_seconds
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, _Running] = {}
        self._is_over = False

    def serve(self) -> None:
        self._selector.register(self._control, selectors.EVENT_READ, self._take_request)
        while not self._is_over:
            events = self._selector.select(self._idle_seconds if self._later and not self._running else None)
            for key, _ in events:
                callback: Callable[[], None] = key.data
                callback()
            if not events:
                load(self._later)
                self._later = ()
        for running in self._running.values():
            process.kill_group(running.pid)

    def _take_request(self) -> None:
        message, fds, _, _ = socket.recv_fds(self._control, MAX_REQUEST_BYTES, REQUEST_FDS)
        if not message:
            self._is_over = True
            return
        frames_fd, watch_fd, report_fd = fds
        attempt_dir = Path(json.loads(message)["attempt_dir"])
        parent_pid = os.getpid()
        if (pid := os.fork()) == 0:
            self._become_child(attempt_dir, frames_fd, watch_fd, parent_pid)
        os.close(frames_fd)
        os.close(watch_fd)
        running = _Running(pid, os.pidfd_open(pid), socket.socket(fileno=report_fd))
        self._running[pid] = running
        _report(running.report, {"pid": pid})
        self._selector.register(running.pidfd, selectors.EVENT_READ, partial(self._reap, running))

    def _reap(self, running: _Running) -> None:
        self._selector.unregister(running.pidfd)
        # The child's own processes end with it; until it is waited for, its group cannot be anybody else's.
        process.kill_group(running.pid)
        _, status = os.waitpid(running.pid, 0)
        _report(running.report, {"status": status})
        os.close(running.pidfd)
        running.report.close()
        del self._running[running.pid]

    def _become_child(self, attempt_dir: Path, frames_fd: int, watch_fd: int, parent_pid: int) -> NoReturn:
        code = 1
        try:
            self._selector.close()
            self._control.close()
            for running in self._running.values():
                running.report.close()
                os.close(running.pidfd)
            code = child.main(attempt_dir, frames_fd, watch_fd, parent_pid=parent_pid)
        finally:
            # On a full disk they refuse, and what this process is worth is said by its code alone.
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(code)


def preload() -> None:
    """Import what trainers need; a recipe that does not import fails its own jobs, not the others'."""
    start = time.monotonic()
    recipes = [path.partition(":")[0] for entry in CATALOG.values() for path in (entry.recipe, entry.handler)]
    load((*_ENGINE, *recipes, *(_PICTURES if curves.can_draw() else ())))
    log.info("warm_parent_ready", seconds=round(time.monotonic() - start, 2), pid=os.getpid())


def load(names: Iterable[str]) -> None:
    """Import these modules, those that fail aside, and keep them in pages shared with every child."""
    with loading():
        for name in dict.fromkeys(names):
            try:
                importlib.import_module(name)
            except ImportError:
                log.exception("preload_failed", module=name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        log.warning("warm_parent_has_threads", threads=threads)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    process.die_with_parent(arguments.parent_pid)
    # A stop of the whole service may signal every process of it, but the worker decides when children stop. Blocked
    # rather than ignored: a child asked to stop before it has a handler finds the signal waiting.
    signal.pthread_sigmask(signal.SIG_BLOCK, child.STOP_SIGNALS)
    configure_logging()
    preload()
    WarmParent(socket.socket(fileno=arguments.control_fd)).serve()
    # Nothing is left to save, and tearing down all that was imported takes seconds.
    os._exit(0)


def _report(connection: socket.socket, message: dict[str, int]) -> None:
    try:
        connection.send(json.dumps(message).encode())
    except OSError:
        log.warning("report_unread", **message)


if __name__ == "__main__":
    main()
