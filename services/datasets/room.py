"""Whether an archive finds room on the disk it arrives on."""

from __future__ import annotations

import shutil
from pathlib import Path

from services.core.errors import LimitExceeded
from services.core.units import human_bytes

FREE_RESERVE_BYTES = 2**30
"""Stays free: what is unpacked, and everything else on that disk, needs some too."""


def check_room(directory: Path, *, needed_bytes: int = 0) -> None:
    """Check that `needed_bytes` more may be written into a directory.

    Raises:
        LimitExceeded: its disk has too little room for them.
    """
    if shutil.disk_usage(directory).free < needed_bytes + FREE_RESERVE_BYTES:
        raise no_room(directory, needed_bytes=needed_bytes)


def no_room(directory: Path, *, needed_bytes: int = 0) -> LimitExceeded:
    """Return the error that says how much is free there, and how much would have to be."""
    needed = human_bytes(needed_bytes + FREE_RESERVE_BYTES)
    asked = f"{human_bytes(needed_bytes)} and {human_bytes(FREE_RESERVE_BYTES)} to spare" if needed_bytes else needed
    free = human_bytes(shutil.disk_usage(directory).free)
    return LimitExceeded(
        f"this server has no room for the archive: it needs {asked}, and {free} are free on its disk; "
        "free space there, or import a smaller one"
    )
