"""One supervised part: its command, its guard process, its log and whether it answers."""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.up import guard
from services.up.probe import Probe

LOG_LIMIT_BYTES = 20 * 2**20
_TAIL_BYTES = 16 * 2**10


class PartState(enum.StrEnum):
    """What a person sees of a part."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class PartSpec:
    """How to run one part. It is ready once every probe says so; stages stop in ascending order."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    log_path: Path
    probes: tuple[Probe, ...]
    metrics_port: int | None = None
    stop_stage: int = 0
    stop_seconds: float = 10.0


@dataclass(slots=True)
class Part:
    """One part while it runs. Only the main thread may call it: a part dies with the thread that started it."""

    spec: PartSpec
    state: PartState = PartState.STARTING
    pid: int | None = None
    restarts: int = 0
    streak: int = 0
    started_at: float = 0.0
    retry_at: float = 0.0
    was_ready: bool = False
    _log_start: int = 0
    _guard: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        read_end, write_end = os.pipe()
        arguments = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(write_end), *self.spec.command]
        with self.spec.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._guard = subprocess.Popen(
                arguments,
                env=dict(self.spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                # A Ctrl-C of the terminal must reach the parts in order, through the supervisor.
                start_new_session=True,
            )
        os.close(write_end)
        with os.fdopen(read_end) as report:
            line = report.readline()
        self.pid = int(line) if line else None
        self.state, self.started_at = PartState.STARTING, time.monotonic()

    def exit_code(self) -> int | None:
        """Return how the part ended with everything below it gone, or None while it runs."""
        return self._guard.poll() if self._guard is not None else None

    @property
    def is_running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def answers(self) -> bool:
        return all(probe() for probe in self.spec.probes)

    def terminate(self) -> None:
        """Ask for a graceful end."""
        self._signal(guard.STOP)

    def kill(self) -> None:
        """End the part and everything it started, now."""
        self._signal(guard.KILL_NOW)

    def _signal(self, number: signal.Signals) -> None:
        if self._guard is not None and self._guard.poll() is None:
            self._guard.send_signal(number)

    def log_tail(self, lines: int) -> list[str]:
        """Return the last lines that the present or last process of this part wrote."""
        try:
            with self.spec.log_path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                begin = self._log_start if self._log_start <= end else 0
                log.seek(max(begin, end - _TAIL_BYTES))
                return log.read().decode("utf-8", "replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    def trim_log(self, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        trim_log(self.spec.log_path, limit_bytes)


def trim_log(path: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
    """Keep one older half of a log that grew too long; whoever appends to it goes on with the same file."""
    if path.exists() and path.stat().st_size > limit_bytes:
        path.with_suffix(".log.1").write_bytes(path.read_bytes())
        os.truncate(path, 0)
