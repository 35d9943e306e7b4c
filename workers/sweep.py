"""At a worker's start: ends what earlier workers of this host left running, and clears their spools.

A worker holds a lock on its home while it lives, so a home that can be locked belongs to a dead one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog

from services.core.clock import Deadline
from services.core.lock_file import lock_file
from workers import host, process
from workers.plan import PROCESS_NAME
from workers.salvage import Salvage

log = structlog.get_logger(__name__)

LOCK_NAME = "lock"


class HomeTaken(Exception):
    """Another living worker of this host has the same id; give each its own TRAINYARD_WORKER_ID."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """An attempt whose worker is dead, and whose trainer is now."""

    worker_id: str
    job_id: str
    token: int


def take_home(home: Path, *, patience_seconds: float = 0.0) -> IO[bytes]:
    """Make a worker's home and lock it; the lock lasts while the returned file is open.

    Raises:
        HomeTaken: a living worker has it.
    """
    deadline = Deadline(patience_seconds)
    while True:
        try:
            # Again at each try: who has the lock may be sweeping, and remove the home with it.
            home.mkdir(parents=True, exist_ok=True)
            return lock_file(home / LOCK_NAME, waits=False)
        except BlockingIOError as err:
            if deadline.is_over:
                raise HomeTaken(f"another worker runs in {home}; give each its own TRAINYARD_WORKER_ID") from err
        except (FileNotFoundError, FileExistsError):
            # It went in the middle of these two lines, or even of the first.
            if home.is_file():
                raise
            continue
        time.sleep(0.02)


def remove_home(home: Path) -> None:
    """Remove a home whose lock the caller holds. A worker that waited for the lock may have made it anew by the end."""
    # What cannot be removed stays: it keeps no worker from its start.
    with suppress(OSError):
        for path in [path for path in home.iterdir() if path.name != LOCK_NAME]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    with suppress(OSError):
        # Last: from here on the home may be somebody else's.
        (home / LOCK_NAME).unlink()
        home.rmdir()


def sweep(homes: Path, own: Path, salvage: Salvage) -> list[Orphan]:
    """Clean `own`, whose lock the caller holds, and every other home below `homes` whose worker is dead.

    Returns the attempts that died with their workers.
    """
    orphans = _clean(own, salvage)
    for home in _dead_homes(homes, own):
        orphans += _clean(home, salvage)
        remove_home(home)
    salvage.prune()
    return orphans


def keep_of_dead(homes: Path, own: Path, salvage: Salvage, *, job_id: str) -> None:
    """Keep what attempts of one job left in homes of dead workers that nobody has cleaned yet."""
    for home in _dead_homes(homes, own):
        for directory in sorted((home / "attempts").glob(f"{job_id}-*")):
            _end_recorded(directory)
            salvage.keep(directory)


def _dead_homes(homes: Path, own: Path) -> Iterator[Path]:
    """Yield homes whose workers are dead, each locked until the next is asked for."""
    for home in sorted(path for path in homes.iterdir() if path.is_dir() and path != own):
        try:
            lock = lock_file(home / LOCK_NAME, waits=False)
        except (BlockingIOError, FileNotFoundError):
            continue
        with lock:
            yield home


def _clean(home: Path, salvage: Salvage) -> list[Orphan]:
    attempts = home / "attempts"
    if not attempts.is_dir():
        return []
    orphans = []
    for directory in sorted(attempts.iterdir()):
        is_of_this_boot = _end_recorded(directory)
        job_id, _, token = directory.name.rpartition("-")
        if is_of_this_boot and token.isdigit():
            orphans.append(Orphan(home.name, job_id, int(token)))
    # Loader processes of a child that is gone are in no record, but they still stand in its directory.
    for pid in host.processes_inside(attempts):
        log.warning("stray_process_killed", pid=pid)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for directory in sorted(attempts.iterdir()):
        salvage.keep(directory)
    shutil.rmtree(attempts, ignore_errors=True)
    return orphans


def _end_recorded(directory: Path) -> bool:
    """Kill the process group an attempt recorded, if that very process still lives: a pid alone may be anybody's.

    Returns whether it ran under this kernel, whose locks cannot be mistaken about its worker.
    """
    try:
        record = json.loads((directory / PROCESS_NAME).read_text())
        pid, start, boot_id = int(record["pid"]), float(record["pid_start"]), record["boot_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    is_of_this_boot: bool = boot_id == host.boot_id()
    if is_of_this_boot and host.process_start(pid) == start:
        log.warning("stray_attempt_killed", pid=pid, attempt=directory.name)
        process.kill_group(pid)
    return is_of_this_boot
