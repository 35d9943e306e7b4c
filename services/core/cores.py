"""How many cores this process may use, which is rarely how many the machine has."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def core_count() -> int:
    """Return the cores this process may use: its affinity, and the quota of its control group."""
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _quota().partition(" ")
    if quota.isdigit() and period:
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _quota() -> str:
    try:
        return _QUOTA.read_text()
    except OSError:
        return ""
