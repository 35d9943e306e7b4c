"""The TorchServe process: started by the agent as its child, restarted with back-off, never outliving it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from services.agent import config, guard
from services.agent.config import Layout
from services.core.clock import MonotonicClock
from services.core.retry import Backoff
from services.core.settings import Settings

log = structlog.get_logger()

_RESTART = Backoff(base_seconds=0.5, cap_seconds=30.0)
_SETTLED_SECONDS = 60.0
_STOP_SECONDS = 15.0


@dataclass(slots=True)
class TorchServeProcess:
    """Keeps one TorchServe running. Called from one thread; `incarnation` counts its starts."""

    settings: Settings
    layout: Layout
    clock: MonotonicClock = time.monotonic
    rng: random.Random = field(default_factory=random.Random)
    incarnation: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0
    _next_start: float = 0.0
    _failures: int = 0

    def ensure_running(self) -> bool:
        """Start TorchServe if it is not running and its back-off is over; return whether a process is there."""
        if self._process is not None and self._process.poll() is not None:
            self._note_exit()
        if self._process is None and self.clock() >= self._next_start:
            self._start()
        return self._process is not None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End TorchServe and its backend workers; safe to call twice."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("torchserve_stop_forced")
        # The closed pipe ends whatever is left of the group, the guard included.
        process.stdin.close()
        process.wait()

    def _start(self) -> None:
        config.write_config(self.settings, self.layout)
        self._clear_leftovers()
        with (self.layout.logs / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", str(Path(guard.__file__)), *config.command(self.layout)],
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self.layout.run_dir,
                env=config.environment(self.settings, self.layout),
            )
        self.incarnation += 1
        self._started_at = self.clock()
        log.info("torchserve_started", pid=self._process.pid, incarnation=self.incarnation)

    def _clear_leftovers(self) -> None:
        """Remove old keys, which would be refused, and what a killed TorchServe had unpacked."""
        self.layout.key_file.unlink(missing_ok=True)
        shutil.rmtree(self.layout.temporary, ignore_errors=True)
        self.layout.create()

    def _note_exit(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
        has_settled = self.clock() - self._started_at > _SETTLED_SECONDS
        self._failures = 1 if has_settled else self._failures + 1
        delay = _RESTART.delay_seconds(self._failures, self.rng)
        self._next_start = self.clock() + delay
        log.error("torchserve_ended", restart_in_seconds=round(delay, 2), last_lines=self._console_tail())

    def _console_tail(self) -> str:
        try:
            with (self.layout.logs / "console.log").open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - 2000))
                return stream.read().decode(errors="replace")
        except OSError:
            return ""
