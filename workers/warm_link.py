"""The worker's side of its warm parent: keeps one alive and asks it for children.

One thread starts it, waits for it and starts it again. That thread never ends before the worker does, because the
kernel's parent-death signal fires when the spawning *thread* ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.core.clock import Deadline
from workers import process
from workers.engine.frames import FrameReader

log = structlog.get_logger(__name__)

RESTART_SECONDS = 1.0
MAX_REPORT_BYTES = 4096


class WarmParentLost(Exception):
    """The warm parent ended and did not come back in time."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the warm parent tells of a child: first its pid, then how it ended."""

    pid: int | None = None
    code: int | None = None
    signal: int | None = None


class Child:
    """A forked trainer as the worker holds it: its frames, its reports, and the pipe that ends it when closed."""

    def __init__(self, frames_fd: int, watch_fd: int, reports: socket.socket) -> None:
        self.frames = FrameReader(frames_fd)
        self.reports = reports
        self._frames_fd = frames_fd
        self._watch_fd = watch_fd
        self.pid: int | None = None
        self._pidfd: int | None = None

    def read_report(self) -> Report | None:
        """Return the next report once `reports` is readable; None when the warm parent is gone."""
        try:
            message = self.reports.recv(MAX_REPORT_BYTES)
        except ConnectionResetError:
            message = b""
        if not message:
            return None
        fields = json.loads(message)
        if "pid" in fields:
            self.pid = fields["pid"]
            with suppress(ProcessLookupError):
                self._pidfd = os.pidfd_open(fields["pid"])
            return Report(pid=self.pid)
        code = os.waitstatus_to_exitcode(fields["status"])
        return Report(code=code) if code >= 0 else Report(signal=-code)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the child itself, not its group: loader processes do not stop by themselves halfway a batch."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the child and every process of its group, which it may not lead yet."""
        if self.pid is not None:
            process.kill_group(self.pid)
            if self._pidfd is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the child; one still alive kills itself when the watch pipe ends."""
        os.close(self._watch_fd)
        os.close(self._frames_fd)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self.reports.close()


class WarmLink:
    """Starts children for any number of threads, through one warm parent at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._changed = threading.Condition()
        self._control: socket.socket | None = None
        self._pid: int | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._keep, name="warm-parent", daemon=True)

    @property
    def pid(self) -> int | None:
        return self._pid

    def start(self) -> None:
        """Begin to import torch in the background; children asked for meanwhile wait for it."""
        self._thread.start()

    def spawn(self, attempt_dir: Path, *, timeout_seconds: float = 60.0) -> Child:
        """Ask for a child that runs the plan in `attempt_dir`; its first report tells its pid.

        Raises:
            WarmParentLost: no warm parent took the request in time.
        """
        request = json.dumps({"attempt_dir": str(attempt_dir)}).encode()
        frames_r, frames_w = os.pipe()
        watch_r, watch_w = os.pipe()
        reports, reports_peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = Child(frames_r, watch_w, reports)
        try:
            self._send(request, [frames_w, watch_r, reports_peer.fileno()], Deadline(timeout_seconds))
        except WarmParentLost:
            child.close()
            raise
        finally:
            os.close(frames_w)
            os.close(watch_r)
            reports_peer.close()
        return child

    def close(self) -> None:
        """End the warm parent and with it every child."""
        with self._changed:
            self._is_closed = True
            self._disconnect()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _send(self, request: bytes, fds: list[int], deadline: Deadline) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._control or self._is_closed, timeout=deadline.remaining)
            control = self._control
            if control is None:
                raise WarmParentLost("the worker is closing" if self._is_closed else "the warm parent did not start")
            try:
                socket.send_fds(control, [request], fds)
            except OSError as err:
                self._disconnect()
                raise WarmParentLost("the warm parent has ended") from err

    def _keep(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                try:
                    parent = self._launch()
                except OSError as err:
                    # No memory or no process left for it, which passes: this thread must not end.
                    log.error("warm_parent_not_started", reason=str(err))
                    self._changed.wait(RESTART_SECONDS)
                    continue
            code = parent.wait()
            with self._changed:
                self._disconnect()
                if not self._is_closed:
                    log.error("warm_parent_ended", code=code)
                    self._changed.wait(RESTART_SECONDS)

    def _launch(self) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = ["--control-fd", str(theirs.fileno()), "--parent-pid", str(os.getpid())]
        with theirs, ExitStack() as failing:
            failing.callback(ours.close)
            parent = subprocess.Popen(
                [sys.executable, "-m", "workers.warm", *arguments],
                env=self._environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # A session of its own: Ctrl-C in the terminal reaches the worker, and the worker decides.
                start_new_session=True,
            )
            failing.pop_all()
        self._control, self._pid = ours, parent.pid
        self._changed.notify_all()
        return parent

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = self._pid = None
