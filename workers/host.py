"""Facts of this machine: who a process is, what the kernel killed, what room is left."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def host_name() -> str:
    return socket.gethostname()


def boot_id() -> str:
    """Return the kernel's id of this boot; pids and start times mean something only within one."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def process_start(pid: int) -> float | None:
    """Return when a process started, in seconds since boot, or None where it is gone or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command in parentheses may hold spaces and parentheses itself; fields count from after the last one.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19]) / _TICKS_PER_SECOND


def processes_inside(directory: Path) -> list[int]:
    """Return the processes whose working directory is `directory` or below: an attempt's whole family."""
    root = directory.resolve()
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                cwd = Path(os.readlink(entry / "cwd"))
            except OSError:
                continue
            if cwd == root or root in cwd.parents:
                found.append(int(entry.name))
    return found


def oom_kill_count() -> int:
    """Return how many processes of our control group the kernel has killed for memory; 0 where it does not say."""
    groups = dict(line.split(":", 2)[1:] for line in _read(_PROC / "self/cgroup").splitlines() if line.count(":") > 1)
    # A container may see only its own part of the tree, mounted as the root.
    for file in _memory_files(groups):
        for line in _read(file).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _memory_files(groups: Mapping[str, str]) -> Iterator[Path]:
    if (own := groups.get("")) is not None:
        yield _CGROUP / own.strip("/") / "memory.events"
        yield _CGROUP / "memory.events"
    if (own := groups.get("memory")) is not None:
        yield _CGROUP / "memory" / own.strip("/") / "memory.oom_control"
        yield _CGROUP / "memory" / "memory.oom_control"


def resident_bytes(group: int) -> int:
    """Return the memory that the processes of a group hold alone, or together with others by their share."""
    total = 0
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and _group_of(entry) == group:
            total += _proportional_bytes(entry)
    return total


def _group_of(entry: Path) -> int:
    fields = _read(entry / "stat").rpartition(")")[2].split()
    return int(fields[2]) if len(fields) > 2 else -1


def _proportional_bytes(entry: Path) -> int:
    # A forked trainer shares hundreds of megabytes of libraries with its warm parent: counted whole they would mislead.
    for line in _read(entry / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
