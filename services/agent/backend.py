"""TorchServe's backend workers as processes of this machine: how much memory one holds, and ending one."""

from __future__ import annotations

import psutil

_MARK = "model_service_worker"


def resident_bytes(pid: int) -> int:
    """Return the memory of a backend worker; 0 where this process cannot see it, as beside another container."""
    try:
        process = psutil.Process(pid)
        return int(process.memory_info().rss) if _is_backend(process) else 0
    except psutil.Error:
        return 0


def end(pid: int) -> None:
    """End a backend worker; TorchServe starts another in its place. What is none is left alone."""
    try:
        process = psutil.Process(pid)
        if _is_backend(process):
            process.terminate()
    except psutil.Error:
        return


def _is_backend(process: psutil.Process) -> bool:
    return any(_MARK in part for part in process.cmdline())
