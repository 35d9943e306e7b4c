"""The platform as a process of its own, while whoever started it waits for it: its log, its end and why it ended."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from services.up.part import trim_log
from services.up.state_dir import faults_named, log_dir

_ERROR = re.compile(r"^(?:\S+Z  )?error: ", re.MULTILINE)
_LINES = 15


@dataclass(frozen=True, slots=True)
class Background:
    """One started process and where its own lines begin in the log."""

    process: subprocess.Popen[bytes]
    log_path: Path
    log_start: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_code(self) -> int | None:
        return self.process.poll()

    def end(self) -> None:
        """Stop it and return once it is gone; a second Ctrl-C does not wait for its parts."""
        self.process.terminate()
        try:
            self.process.wait()
        except BaseException:
            # Its guards end every part with it.
            self.process.kill()
            self.process.wait()
            raise

    def describe_end(self) -> str:
        """Say why it ended or is not ready: in its own words where it knows, else by its last lines."""
        with self.log_path.open("rb") as log:
            log.seek(self.log_start)
            said = log.read().decode("utf-8", "replace")
        code = self.exit_code()
        if code is not None and (cause := cause_of(said)):
            return cause
        why = "it was not ready in time" if code is None else f"it ended with exit code {code}"
        return f"the platform did not start: {why}\n{last_lines(said)}"


def log_path(state_dir: Path) -> Path:
    return log_dir(state_dir) / "up.log"


def launch(state_dir: Path, environ: Mapping[str, str]) -> Background:
    """Start the platform of a state directory; its log goes on where that of the last one ended."""
    path = log_path(state_dir)
    with faults_named(state_dir):
        trim_log(path)
        log = path.open("ab")
    with log:
        # The child moves the position that both have.
        start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "services.up"],
            env={**environ, "TRAINYARD_STATE_DIR": str(state_dir)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        return Background(process, path, start)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block by an exception, as Ctrl-C does: what it started can then be stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for number in heard:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def cause_of(said: str) -> str:
    """Return the error that a process ended with, or nothing where it wrote none."""
    *_, found = [None, *_ERROR.finditer(said)]
    return said[found.end() :].strip() if found else ""


def last_lines(said: str) -> str:
    return "\n".join(f"    {line}" for line in said.splitlines()[-_LINES:])


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
