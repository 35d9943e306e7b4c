"""Servers of somebody else end with the process that started them, however it ends."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from tests.stack.platform import wait_until

SCRIPT = """
import subprocess, sys
from tests.stack.bound import bound
print(subprocess.Popen(bound(["sleep", "60"]), start_new_session=True).pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_bound_command_keeps_its_number_and_ends_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: child.name() == "sleep", what="the command runs", limit_seconds=10)
        parent.kill()

    # A killed parent's child goes to a process that may not collect it at once.
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert gone or alive[0].status() == psutil.STATUS_ZOMBIE
