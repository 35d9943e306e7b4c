"""Children that break the rules, and a warm parent that cannot start: who ends them, and what becomes of the worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from services.core.settings import Timings
from tests.integration.workers.yard import until
from workers import warm_link
from workers.engine.frames import Frame, FrameInvalid, FrameKind, FrameWriter
from workers.stop import Latch, StopRequest
from workers.supervisor import Supervisor
from workers.warm_link import Child, WarmLink


@dataclass
class Forked:
    """A child that sleeps, and this process in the place of its warm parent."""

    process: subprocess.Popen[bytes]
    child: Child
    frames: FrameWriter
    reports: socket.socket

    def start(self) -> None:
        """Tell the child's pid, and how it ended once it has."""
        self.reports.send(json.dumps({"pid": self.process.pid}).encode())
        threading.Thread(target=self._tell_end).start()

    def _tell_end(self) -> None:
        _, status = os.waitpid(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.reports.send(json.dumps({"status": status}).encode())


@pytest.fixture(params=[True, False], ids=["leads a group", "leads none yet"])
def forked(request: pytest.FixtureRequest) -> Iterator[Forked]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    frames_r, frames_w = os.pipe()
    watch_r, watch_w = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=request.param)
    one = Forked(process, Child(frames_r, watch_w, ours), FrameWriter(frames_w), theirs)
    yield one
    if process.returncode is None:
        process.kill()
        until(lambda: process.returncode is not None, what="the child's end")
    for fd in (frames_w, watch_r):
        os.close(fd)
    theirs.close()


def refuse(frame: Frame) -> None:
    if frame.kind is FrameKind.ARTIFACT:
        raise FrameInvalid("an artifact frame names a path outside the spool")


def test_a_frame_that_is_refused_ends_the_child_and_not_the_worker(forked: Forked) -> None:
    stop = StopRequest(Latch())
    supervisor = Supervisor(forked.child, stop=stop, timings=Timings(), on_start=lambda _: None, on_frame=refuse)
    forked.start()
    forked.frames.write(FrameKind.ARTIFACT, path="/etc/passwd")
    # Whatever it says afterwards counts for nothing.
    forked.frames.write(FrameKind.FINAL, step=10)

    ending = supervisor.run()

    assert ending.is_stream_broken
    assert ending.final is None
    assert ending.signal == signal.SIGKILL


def test_a_worker_goes_on_trying_while_no_warm_parent_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def launch(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        tries.append(len(os.listdir("/proc/self/fd")))
        if len(tries) <= 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return popen(*arguments, **options)

    popen = subprocess.Popen
    monkeypatch.setattr(warm_link, "RESTART_SECONDS", 0.05)
    monkeypatch.setattr(warm_link.subprocess, "Popen", launch)
    link = WarmLink(os.environ)
    link.start()

    until(lambda: link.pid is not None, what="a warm parent")

    link.close()
    assert len(tries) == 4
    assert tries[0] == tries[2]  # what a try opened, it closed
