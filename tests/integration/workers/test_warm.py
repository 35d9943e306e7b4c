"""What the warm parent imports while nobody asks it for a child."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.warm import WarmParent, _Running

PATIENCE_SECONDS = 30.0


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that can be imported and is not."""
    name = f"asked_for_by_few_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_what_few_children_need_comes_while_nobody_asks(later: str) -> None:
    with _Serving(later, idle_seconds=0.05):
        _wait(lambda: later in sys.modules)

    del sys.modules[later]


def test_nothing_is_imported_while_a_child_runs_since_its_end_would_be_seen_late(later: str) -> None:
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        with _Serving(later, idle_seconds=0.01, running=sleeper.pid):
            time.sleep(0.3)
        assert later not in sys.modules
    finally:
        sleeper.kill()
        sleeper.wait()


class _Serving:
    """A warm parent at work in a thread; no child is forked."""

    def __init__(self, later: str, *, idle_seconds: float, running: int | None = None) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._mine, self._theirs = mine, theirs
        self._parent = WarmParent(theirs, later=(later, f"no_such_{later}"), idle_seconds=idle_seconds)
        if running is not None:
            self._parent._running[running] = _Running(running, -1, theirs)
        self._thread = threading.Thread(target=self._parent.serve)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._mine.close()
        self._thread.join(PATIENCE_SECONDS)
        self._theirs.close()
        assert not self._thread.is_alive()


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
