"""`endpoints.json` in the state directory: where a running platform answers, for people, the client and scrapers."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.up.lock import holder

FILE_NAME = "endpoints.json"
LAST_NAME = "last-endpoints.json"
"""Where the last platform of the directory answered, for the next one to answer there too."""


class PartStatus(BaseModel):
    """One running part."""

    model_config = ConfigDict(frozen=True)

    state: str
    pid: int | None = None
    metrics_port: int | None = None
    restarts: int = 0
    log: str = ""


class TorchServePorts(BaseModel):
    """Where TorchServe listens."""

    model_config = ConfigDict(frozen=True)

    inference: int
    management: int
    metrics: int
    grpc: int
    grpc_management: int


class Endpoints(BaseModel):
    """Everything a neighbour needs to reach a running platform."""

    model_config = ConfigDict(frozen=True)

    address: str = Field(description="host:port of the API.")
    pid: int = Field(description="The process to stop; it stops the rest.")
    is_ready: bool
    parts: dict[str, PartStatus]
    torchserve: TorchServePorts


def write(state_dir: Path, endpoints: Endpoints) -> None:
    """Replace the file at once: a reader sees the old facts or the new ones."""
    path = state_dir / FILE_NAME
    temporary = path.with_suffix(".part")
    with temporary.open("w") as file:
        file.write(endpoints.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(state_dir: Path) -> Endpoints | None:
    """Return what the file says, or None where there is no readable one."""
    return _read(state_dir / FILE_NAME)


def read_last(state_dir: Path) -> Endpoints | None:
    """Return what the last platform was; one that was killed left the file of a running one."""
    return read(state_dir) or _read(state_dir / LAST_NAME)


def running(state_dir: Path) -> Endpoints | None:
    """Return what the file says where the process that wrote it still runs; one that was killed leaves it behind."""
    # Another user's state directory may be read, but not asked.
    with suppress(PermissionError):
        pid = holder(state_dir)
        found = read(state_dir)
        return found if found is not None and found.pid == pid else None
    return None


def remove(state_dir: Path) -> None:
    """Take the facts away from readers, and keep them for the next start."""
    with suppress(FileNotFoundError):
        (state_dir / FILE_NAME).replace(state_dir / LAST_NAME)


def _read(path: Path) -> Endpoints | None:
    try:
        return Endpoints.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
