"""Owns one child from its start to its end: reads its frames, asks it to stop, ends it when it does not.

One thread, one selector: frames, reports of the warm parent, and the attempt's reasons to stop. Nothing here waits
for the database or the object store, so a child never blocks on a full pipe because one of them is away.
"""

from __future__ import annotations

import selectors
import signal
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from services.core.clock import MonotonicClock
from services.core.settings import Timings
from workers import host
from workers.child import DUMP_SIGNAL
from workers.engine.frames import Frame, FrameInvalid, FrameKind
from workers.outcome import Ending
from workers.stop import StopReason, StopRequest
from workers.warm_link import Child, Report

log = structlog.get_logger(__name__)

START_SECONDS = 120.0
"""From the request to the child's pid; longest while the warm parent still imports torch."""
DUMP_SECONDS = 1.0
"""From asking a stuck child for its stacks to killing it."""
STALL_STEPS = 20
TICK_SECONDS = 1.0
MEMORY_SECONDS = 0.5
PROBING = "probing"
"""A phase before the first step of a job, in which a child has nothing to save and one step may outlast its grace."""


class StallWatch:
    """Tells slow from stuck: no new step or phase for the floor, or for 20 median steps if those take longer."""

    def __init__(self, floor_seconds: float, clock: MonotonicClock) -> None:
        self._floor_seconds = floor_seconds
        self._clock = clock
        self._last_change = clock()
        self._step_seconds: deque[float] = deque(maxlen=64)
        self._seen: tuple[Any, ...] = ()
        self._is_training = False

    def begin(self) -> None:
        """Count from now: the wait for a warm parent that still imports torch is no stall."""
        self._last_change = self._clock()

    def observe(self, frame: Frame) -> None:
        fields = frame.fields
        if frame.kind is FrameKind.PHASE:
            self._is_training = fields.get("phase") == "training"
        if frame.kind is FrameKind.STEP and isinstance(fields.get("step_ms"), int | float):
            self._step_seconds.append(fields["step_ms"] / 1000)
        # While it trains, only a new step is progress; evaluation and export just say that they live.
        seen = (frame.kind, fields.get("step")) if self._is_training else ()
        if not self._is_training or seen != self._seen:
            self._last_change = self._clock()
        self._seen = seen

    @property
    def is_stalled(self) -> bool:
        return self._clock() - self._last_change > self.limit_seconds

    @property
    def limit_seconds(self) -> float:
        median = statistics.median(self._step_seconds) if self._step_seconds else 0.0
        return max(self._floor_seconds, STALL_STEPS * median)


@dataclass(slots=True)
class _Heard:
    """What the child said that decides its outcome."""

    final: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    last_step: int = -1
    phase: str = ""

    def take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.PHASE:
            self.phase = str(frame.fields.get("phase"))
        elif frame.kind is FrameKind.FINAL:
            self.final = frame.fields
        elif frame.kind is FrameKind.FAILURE:
            self.failure = frame.fields
        if isinstance(step := frame.fields.get("step"), int):
            self.last_step = max(self.last_step, step)


@dataclass(slots=True)
class _Times:
    """When things that end by themselves were begun, on the monotonic clock."""

    start: float
    termed: float | None = None
    dumped: float | None = None


class Supervisor:
    """Runs one child to its end."""

    def __init__(
        self,
        child: Child,
        *,
        stop: StopRequest,
        timings: Timings,
        on_start: Callable[[int], None],
        on_frame: Callable[[Frame], None],
        memory_limit_bytes: int = 0,
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self._child = child
        self._stop = stop
        self._timings = timings
        self._on_start = on_start
        self._on_frame = on_frame
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._heard = _Heard()
        self._watch = StallWatch(timings.stall_floor, clock)
        self._times = _Times(clock())
        self._exit: Report | None = None
        self._is_parent_lost = False
        self._is_stream_broken = False
        self._is_killed = False
        self._memory_limit = memory_limit_bytes
        self._memory_looked = clock()
        self._is_over_memory = False
        self._oom_kills = host.oom_kill_count()

    def run(self) -> Ending:
        """Return how the child ended; afterwards no process of it is left."""
        try:
            self._register()
            while self._exit is None and not self._is_parent_lost:
                for key, _ in self._selector.select(self._patience()):
                    act: Callable[[], None] = key.data
                    act()
                self._mind_stream()
                self._mind_stop()
                self._mind_stall()
                self._mind_memory()
                self._mind_start()
            self._kill()
            self._read_frames()
        finally:
            self._kill()
            self._selector.close()
            self._child.close()
        return self._ending()

    def _register(self) -> None:
        self._selector.register(self._child.frames, selectors.EVENT_READ, self._read_frames)
        self._selector.register(self._child.reports, selectors.EVENT_READ, self._read_report)
        for latch in self._stop.latches():
            self._selector.register(latch, selectors.EVENT_READ, lambda latch=latch: self._selector.unregister(latch))

    def _patience(self) -> float:
        is_waiting = self._times.termed is not None or self._times.dumped is not None
        if is_waiting:
            return 0.1
        return min(TICK_SECONDS, self._timings.heartbeat, MEMORY_SECONDS if self._memory_limit else TICK_SECONDS)

    def _read_report(self) -> None:
        report = self._child.read_report()
        if report is None:
            self._is_parent_lost = True
        elif report.pid is not None:
            self._watch.begin()
            self._on_start(report.pid)
        else:
            self._exit = report

    def _read_frames(self) -> None:
        if self._is_stream_broken:
            return
        try:
            for frame in self._child.frames.read():
                self._heard.take(frame)
                self._watch.observe(frame)
                self._on_frame(frame)
        except FrameInvalid:
            log.warning("frames_unreadable", exc_info=True)
            self._is_stream_broken = True
            self._forget_frames()
            return
        if self._child.frames.is_closed:
            self._forget_frames()

    def _forget_frames(self) -> None:
        if self._child.frames in self._selector.get_map():
            self._selector.unregister(self._child.frames)

    def _mind_stream(self) -> None:
        """End a child that cannot be understood, once its pid is known."""
        if self._is_stream_broken:
            self._kill()

    def _mind_stop(self) -> None:
        reason = self._stop.reason
        # Once killed it needs no second word, however long the kernel takes to end it.
        if reason is None or self._child.pid is None or self._is_killed:
            return
        if reason is StopReason.LOST:
            self._kill()
        elif self._heard.phase == PROBING:
            log.info("child_ended_while_probing", pid=self._child.pid)
            self._kill()
        elif self._times.termed is None:
            self._times.termed = self._clock()
            self._child.send_signal(signal.SIGTERM)
        elif self._clock() - self._times.termed > self._grace(reason):
            log.warning("child_did_not_stop", pid=self._child.pid)
            self._kill()

    def _grace(self, reason: StopReason) -> float:
        grace = self._timings.term_grace
        # Giving a job back has time, but needs half of it to upload what the child saved.
        return max(grace, self._timings.drain_budget / 2) if reason <= StopReason.YIELD else grace

    def _mind_stall(self) -> None:
        if self._times.dumped is not None:
            if self._clock() - self._times.dumped > DUMP_SECONDS:
                self._kill()
        elif self._child.pid is not None and self._watch.is_stalled:
            log.error("child_stalled", pid=self._child.pid, limit_seconds=self._watch.limit_seconds)
            self._times.dumped = self._clock()
            self._child.send_signal(DUMP_SIGNAL)

    def _mind_memory(self) -> None:
        """End a trainer that takes more than its share, before the kernel ends somebody of its own choice."""
        pid, now = self._child.pid, self._clock()
        if not self._memory_limit or pid is None or self._is_killed or now - self._memory_looked < MEMORY_SECONDS:
            return
        self._memory_looked = now
        used = host.resident_bytes(pid)
        if used > self._memory_limit:
            log.error("child_over_memory", pid=pid, used_bytes=used, limit_bytes=self._memory_limit)
            self._is_over_memory = True
            self._kill()

    def _mind_start(self) -> None:
        is_late = self._child.pid is None and self._clock() - self._times.start > START_SECONDS
        self._is_parent_lost |= is_late

    def _kill(self) -> None:
        # The warm parent ends the group before it reports an exit; after that the pid may be anybody's.
        if self._exit is None and self._child.pid is not None and not self._is_killed:
            self._is_killed = True
            self._child.kill()

    def _ending(self) -> Ending:
        report = self._exit or Report()
        return Ending(
            code=report.code,
            signal=report.signal,
            is_parent_lost=self._is_parent_lost,
            is_stream_broken=self._is_stream_broken,
            is_stalled=self._times.dumped is not None,
            is_over_memory=self._is_over_memory,
            is_oom_killed=host.oom_kill_count() > self._oom_kills,
            stop=self._stop.reason,
            final=self._heard.final,
            failure=self._heard.failure,
            last_step=self._heard.last_step,
        )
