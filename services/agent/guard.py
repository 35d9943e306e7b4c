"""Runs one command and leaves nothing of it behind, however the process that asked for it ends.

Run as a script with the standard library only, so that it starts at once and has a single thread. Its
standard input is a pipe whose other end the agent holds: when that closes, by SIGKILL too, the whole
process group goes. A parent-death signal alone would not do, because it reaches only the direct child
and fires when the thread that started it ends.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
_TERM_SECONDS = 10.0


def main(command: list[str]) -> int:
    """Run `command` in a process group of its own until it ends or standard input closes."""
    os.setpgid(0, 0)
    child = os.fork()
    if child == 0:
        _become(command)
    stopped, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGTERM, lambda *_: None)
    process = os.pidfd_open(child)
    ready, _, _ = select.select([process, sys.stdin.fileno(), stopped], [], [])
    if stopped in ready and process not in ready:
        os.kill(child, signal.SIGTERM)
        select.select([process, sys.stdin.fileno()], [], [], _TERM_SECONDS)
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        os.write(2, f"ended with code {os.waitstatus_to_exitcode(status)}\n".encode())
    os.killpg(0, signal.SIGKILL)
    return 0


def _become(command: list[str]) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    finally:
        os._exit(127)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
