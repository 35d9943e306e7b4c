"""Children that break the rules, and a warm parent that cannot start: who ends them, and what becomes of the worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from services.core.settings import Timings
from tests.integration.workers.yard import until
from workers import supervisor as supervisor_module
from workers import warm_link
from workers.engine.frames import Frame, FrameInvalid, FrameKind, FrameWriter
from workers.outcome import Verdict, decide
from workers.stop import Latch, StopReason, StopRequest
from workers.supervisor import Supervisor
from workers.warm_link import Child, WarmLink


@dataclass
class Forked:
    """A child that sleeps and does not listen to SIGTERM, and this process in the place of its warm parent."""

    process: subprocess.Popen[bytes]
    child: Child
    frames: FrameWriter
    reports: socket.socket

    def start(self, *, delay_seconds: float = 0.0) -> None:
        """Tell the child's pid, and how it ended once it has; the delay is the time the kernel takes to end it."""
        self.reports.send(json.dumps({"pid": self.process.pid}).encode())
        threading.Thread(target=self._tell_end, args=(delay_seconds,)).start()

    def _tell_end(self, delay_seconds: float) -> None:
        _, status = os.waitpid(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        time.sleep(delay_seconds)
        self.reports.send(json.dumps({"status": status}).encode())


@pytest.fixture(params=[True, False], ids=["leads a group", "leads none yet"])
def forked(request: pytest.FixtureRequest) -> Iterator[Forked]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    frames_r, frames_w = os.pipe()
    watch_r, watch_w = os.pipe()
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, start_new_session=request.param, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    one = Forked(process, Child(frames_r, watch_w, ours), FrameWriter(frames_w), theirs)
    yield one
    if process.returncode is None:
        process.kill()
        until(lambda: process.returncode is not None, what="the child's end")
    process.stdout.close()
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


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> structlog.testing.LogCapture:
    """What the supervisor logs."""
    capture = structlog.testing.LogCapture()
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[capture], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr(supervisor_module, "log", logger)
    return capture


def test_a_child_that_does_not_stop_is_killed_and_that_is_said_once(
    forked: Forked, logged: structlog.testing.LogCapture
) -> None:
    stop = StopRequest(Latch())
    timings = Timings(term_grace=0.3)
    supervisor = Supervisor(forked.child, stop=stop, timings=timings, on_start=lambda _: None, on_frame=lambda _: None)
    forked.start(delay_seconds=0.5)
    stop.request(StopReason.CANCEL)

    ending = supervisor.run()

    assert ending.signal == signal.SIGKILL
    assert [entry["event"] for entry in logged.entries] == ["child_did_not_stop"]


@pytest.mark.parametrize("reason", [StopReason.CANCEL, StopReason.YIELD, StopReason.DRAIN])
def test_a_child_that_probes_is_ended_without_a_grace(forked: Forked, reason: StopReason) -> None:
    stop = StopRequest(Latch())
    supervisor = Supervisor(
        forked.child,
        stop=stop,
        timings=Timings(),
        on_start=lambda _: None,
        # As soon as it is known to probe.
        on_frame=lambda _: stop.request(reason),
    )
    forked.start()
    forked.frames.write(FrameKind.PHASE, phase="probing", detail="")
    begun = time.monotonic()

    ending = supervisor.run()

    assert ending.signal == signal.SIGKILL
    assert time.monotonic() - begun < 5 < Timings().term_grace
    wanted = Verdict.CANCEL if reason is StopReason.CANCEL else Verdict.REQUEUE
    assert (decide(ending).verdict, decide(ending).reason) == (wanted, None)


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
