"""One platform a state directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.up.lock import LOCK_NAME, AlreadyRunning, hold_lock, holder


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        hold_lock(tmp_path),
        pytest.raises(AlreadyRunning, match=rf"process {os.getpid()} already runs .*trainyard down") as refused,
        hold_lock(tmp_path),
    ):
        pass

    assert refused.value.pid == os.getpid()


def test_the_file_is_gone_afterwards_and_the_lock_free_again(tmp_path: Path) -> None:
    with hold_lock(tmp_path):
        assert holder(tmp_path) == os.getpid()

    assert not (tmp_path / LOCK_NAME).exists()
    assert holder(tmp_path) is None
    with hold_lock(tmp_path):
        pass


def test_a_file_left_by_a_killed_process_stops_nobody(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from services.up.lock import hold_lock\n"
        "with hold_lock(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[3])
    assert (tmp_path / LOCK_NAME).exists()

    assert holder(tmp_path) is None
    with hold_lock(tmp_path):
        assert holder(tmp_path) == os.getpid()
