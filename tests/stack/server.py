"""One server of somebody else as a child process: ready after `start`, gone after `stop` and with its parent."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack.bound import bound

START_SECONDS = 60.0
STOP_SECONDS = 10.0


class ServerNotReady(RuntimeError):
    """A server ended or did not answer in time; the message holds the last lines of its log."""


@dataclass
class ServerProcess:
    """A command with its log under `directory`; `stop` and `start` keep its address and its data."""

    name: str
    command: Sequence[str]
    directory: Path
    is_ready: Callable[[], bool]
    environ: Mapping[str, str] | None = None
    """The whole environment; None inherits this process's."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        """Start the server and return once it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                bound(self.command),
                env=None if self.environ is None else dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self.stop()
                what = f"did not become ready within {START_SECONDS:.0f} s" if code is None else f"ended with {code}"
                raise ServerNotReady(f"{self.name} {what}:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server; SIGKILL is a crash. Safe to call again."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Tell whether a GET of `url` succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False
