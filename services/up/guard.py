"""Runs one part and takes everything it started down with it.

Started as `python -I -S guard.py PARENT_PID REPORT_FD COMMAND...`, standard library only, one thread.
The guard is a subreaper: whatever the part leaves behind becomes its child and dies with it, in whatever
session it hid. It dies with its parent, so a platform whose `trainyard up` was killed leaves no process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_DIED = signal.SIGUSR1
STOP = signal.SIGTERM
KILL_NOW = signal.SIGQUIT
_WATCHED = {PARENT_DIED, STOP, KILL_NOW, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _die_with(parent: int, death_signal: int) -> None:
    """Ask for `death_signal` when the parent ends; leave at once where it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        os._exit(1)


def _exec(command: list[str], guard: int) -> None:
    try:
        os.setsid()
        _die_with(guard, signal.SIGKILL)
        # A blocked signal stays blocked across exec: the part would never hear its own SIGTERM.
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execvp(command[0], command)  # noqa: S606 - a fixed argument list, no shell
    except OSError as err:
        sys.stderr.write(f"cannot start {command[0]}: {err}\n")
    os._exit(127)


def _children() -> list[int]:
    me = os.getpid()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == me:
                found.append(int(entry))
    return found


def _sweep() -> None:
    """Kill and reap until nothing is left: orphans of what just died arrive here as new children."""
    while True:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _reap(part: int) -> int | None:
    """Reap whatever ended; return the part's exit code (128 + n for signal n), or None while it runs."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == part:
            plain = os.waitstatus_to_exitcode(status)
            code = plain if plain >= 0 else 128 - plain


def _watch(part: int) -> int:
    while True:
        caught = signal.sigwait(_WATCHED)
        if caught == signal.SIGCHLD:
            if (code := _reap(part)) is not None:
                return code
        elif caught in (PARENT_DIED, KILL_NOW):
            return 128 + signal.SIGKILL
        else:
            os.kill(part, signal.SIGTERM)


def main(argv: list[str]) -> int:
    parent, report, command = int(argv[0]), int(argv[1]), argv[2:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    _die_with(parent, PARENT_DIED)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(report, False)
    guard = os.getpid()
    part = os.fork()
    if part == 0:
        _exec(command, guard)
    os.write(report, f"{part}\n".encode())
    os.close(report)
    code = _watch(part)
    _sweep()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
