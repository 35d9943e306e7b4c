"""Starts the parts, restarts one that dies, and stops all of them in order.

Runs on the main thread only: the kernel ties a part's life to the thread that started it.
"""

from __future__ import annotations

import random
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from services.core.clock import Deadline
from services.core.environment import UNUSABLE_EXIT
from services.core.retry import Backoff
from services.up.part import Part, PartSpec, PartState

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESTART_BACKOFF = Backoff(base_seconds=0.5, cap_seconds=30.0)
_HEALTHY_SECONDS = 60.0
_KILL_SECONDS = 10.0
_PROBE_SECONDS = 0.1
_IDLE_SECONDS = 1.0


class PartRefused(Exception):
    """A part cannot work with its settings; the message is what it said last."""

    def __init__(self, part: Part) -> None:
        said = part.log_tail(1)
        super().__init__(said[0].removeprefix("error: ") if said else f"{part.spec.name} refuses its settings")


@dataclass(frozen=True, slots=True)
class Observer:
    """Who is told: `changed` after any part's state moved, `died` with an exit code and the delay to the restart."""

    changed: Callable[[Sequence[Part], bool], None]
    died: Callable[[Part, int, float], None]


@dataclass(slots=True)
class Supervisor:
    """Runs parts until a stop signal; a second one ends them at once."""

    specs: Sequence[PartSpec]
    observer: Observer
    backoff: Backoff = RESTART_BACKOFF
    parts: list[Part] = field(init=False)
    _rng: random.Random = field(default_factory=random.Random)
    _stops: int = 0
    _refused: Part | None = None
    _wake: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        self.parts = [Part(spec) for spec in self.specs]

    def run(self) -> None:
        """Return once every part is gone. No process of theirs is left, however this ends.

        Raises:
            PartRefused: a part ended because of a setting before it ever was ready.
        """
        with _Signals(self._on_stop, self._wake):
            try:
                for part in self.parts:
                    part.start()
                self._tell()
                while not self._stops and self._refused is None:
                    self._look_after()
                    self._sleep()
                self._stop_in_order()
            finally:
                self._kill_rest()
        if self._refused is not None:
            raise PartRefused(self._refused)

    @property
    def is_ready(self) -> bool:
        return all(part.state is PartState.READY for part in self.parts)

    def _on_stop(self) -> None:
        self._stops += 1

    def _tell(self) -> None:
        self.observer.changed(self.parts, self.is_ready)

    def _sleep(self) -> None:
        seconds = _IDLE_SECONDS if self.is_ready else _PROBE_SECONDS
        for key, _ in self._wake.select(seconds):
            with suppress(BlockingIOError):
                key.fileobj.recv(4096)  # type: ignore[union-attr]

    def _look_after(self) -> None:
        before = [(part.state, part.pid) for part in self.parts]
        for part in self.parts:
            self._look_after_one(part)
        if before != [(part.state, part.pid) for part in self.parts]:
            self._tell()

    def _look_after_one(self, part: Part) -> None:
        part.trim_log()
        if part.state is PartState.RESTARTING:
            if time.monotonic() >= part.retry_at:
                part.start()
        elif (code := part.exit_code()) is not None:
            # One that worked once may work again: files of settings, such as certificates, are replaced meanwhile.
            if code == UNUSABLE_EXIT and not part.was_ready:
                self._refused, part.pid = part, None
            else:
                self._schedule_restart(part, code)
        elif part.state is PartState.STARTING and part.answers():
            part.state, part.was_ready = PartState.READY, True

    def _schedule_restart(self, part: Part, code: int) -> None:
        if time.monotonic() - part.started_at > _HEALTHY_SECONDS:
            part.streak = 0
        part.streak += 1
        part.restarts += 1
        delay = self.backoff.delay_seconds(part.streak, self._rng)
        part.retry_at = time.monotonic() + delay
        part.state, part.pid = PartState.RESTARTING, None
        self.observer.died(part, code, delay)

    def _stop_in_order(self) -> None:
        for stage in sorted({part.spec.stop_stage for part in self.parts}):
            together = [part for part in self.parts if part.spec.stop_stage == stage]
            self._stop_together(together)

    def _stop_together(self, parts: Sequence[Part]) -> None:
        for part in parts:
            part.terminate()
            part.state = PartState.STOPPING if part.is_running else PartState.STOPPED
        self._tell()
        started = time.monotonic()
        while running := [part for part in parts if part.state is PartState.STOPPING]:
            for part in running:
                if not part.is_running:
                    part.state, part.pid = PartState.STOPPED, None
                    self._tell()
                elif self._stops > 1 or time.monotonic() - started > part.spec.stop_seconds:
                    part.kill()
            if any(part.is_running for part in running):
                self._sleep()

    def _kill_rest(self) -> None:
        deadline = Deadline(_KILL_SECONDS)
        for part in self.parts:
            part.kill()
        while any(part.is_running for part in self.parts) and not deadline.is_over:
            self._sleep()


class _Signals:
    """Turns stop signals into a count and every signal into a wake-up, and gives the old handlers back."""

    def __init__(self, on_stop: Callable[[], None], selector: selectors.DefaultSelector) -> None:
        self._on_stop = on_stop
        self._selector = selector

    def __enter__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._old = {number: signal.signal(number, self._handle) for number in (*_STOP_SIGNALS, signal.SIGCHLD)}
        self._old_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._selector.unregister(self._reader)
        self._reader.close()
        self._writer.close()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP_SIGNALS:
            self._on_stop()
