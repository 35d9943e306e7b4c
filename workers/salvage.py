"""Checkpoints that a trainer had left on this host's disk but nobody had committed yet, kept for the next attempt here.

They are whole: a trainer renames a checkpoint into place after every byte of it is on disk. They count for nothing
until the holder of the current lease uploads and commits one under its own token, like a checkpoint of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from services.core.errors import IntegrityError
from services.db.job_records import Lease
from services.storage.digest import hash_file
from workers.plan import SPOOL_NAME

log = structlog.get_logger(__name__)

KEEP_SECONDS = 24 * 3600.0
_DOCUMENT = "state.json"
_TENSORS = ".safetensors"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file as a checkpoint's row lists it."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Salvaged:
    """One whole checkpoint by somebody who can no longer commit it."""

    step: int
    path: Path
    metric: float | None

    def digests(self) -> list[FileDigest]:
        """Return name, size and sha256 of each file."""
        return [FileDigest(file.name, *hash_file(file)) for file in sorted(self.path.iterdir())]


class Salvage:
    """A folder of this host's workers; entries are named by job and token, and moved by renames only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def keep(self, attempt_dir: Path) -> None:
        """Move the newest checkpoint out of the spool of an attempt that is over and was not fenced."""
        ready = sorted((attempt_dir / SPOOL_NAME).glob("step-*.ready"), key=_step_of)
        if not ready:
            return
        target = self._root / attempt_dir.name / ready[-1].name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        ready[-1].rename(target)
        log.info("checkpoint_kept", attempt=attempt_dir.name, step=_step_of(target))

    def take(self, lease: Lease, *, after_step: int, into: Path) -> Salvaged | None:
        """Move the newest checkpoint of earlier attempts of the lease's job into a folder, if it is past `after_step`.

        What else is kept of the job goes: the caller's attempt leaves it all behind.
        """
        found = sorted(self._of_job(lease), key=_step_of)
        taken = None
        while found and taken is None and _step_of(found[-1]) > after_step:
            path = into / found[-1].name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another worker of this host may drop what is a day old.
            with suppress(FileNotFoundError):
                found.pop().rename(path)
                taken = _examined(path)
        for directory in self._root.glob(f"{lease.job_id}-*"):
            if _token_of(directory) < lease.token:
                shutil.rmtree(directory, ignore_errors=True)
        return taken

    def prune(self) -> None:
        """Drop what nobody came for in a day."""
        oldest = time.time() - KEEP_SECONDS
        for directory in self._root.glob("*-*"):
            # Another worker of this host may take or drop it meanwhile.
            with suppress(FileNotFoundError):
                if directory.stat().st_mtime < oldest:
                    shutil.rmtree(directory, ignore_errors=True)

    def _of_job(self, lease: Lease) -> Iterator[Path]:
        for directory in self._root.glob(f"{lease.job_id}-*"):
            if _token_of(directory) < lease.token:
                yield from directory.glob("step-*.ready")


def link_copy(source: Path, target: Path) -> None:
    """Make a second directory of the same files, which outlives the first."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        os.link(file, target / file.name)


def _examined(path: Path) -> Salvaged | None:
    """Return a checkpoint that reads as one; anything else is removed."""
    try:
        document: dict[str, Any] = json.loads((path / _DOCUMENT).read_bytes())
        for file in path.glob(f"*{_TENSORS}"):
            _check_length(file)
        metric = document.get("metric")
        return Salvaged(int(document["step"]), path, None if metric is None else float(metric))
    except (OSError, ValueError, KeyError, TypeError, IntegrityError) as err:
        log.warning("kept_checkpoint_damaged", path=path.name, error=str(err))
        shutil.rmtree(path, ignore_errors=True)
        return None


def _check_length(file: Path) -> None:
    """Compare a safetensors file's length with what its header says."""
    with file.open("rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        header = json.loads(source.read(min(length, 100_000_000)))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if file.stat().st_size != 8 + length + max(ends, default=0):
        raise IntegrityError(f"{file.name} is cut short")


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-").removesuffix(".ready"))


def _token_of(directory: Path) -> int:
    token = directory.name.rpartition("-")[2]
    return int(token) if token.isdigit() else 0
