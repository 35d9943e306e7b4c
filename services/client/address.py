"""Where the platform answers: what was asked for, else the environment, else the one of the state directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.up import endpoints

DEFAULT_ADDRESS = "127.0.0.1:7070"
SERVER_VARIABLE = "TRAINYARD_SERVER"
STATE_DIR_VARIABLE = "TRAINYARD_STATE_DIR"


def resolve_address(address: str | None, environ: Mapping[str, str]) -> str:
    if chosen := address or environ.get(SERVER_VARIABLE):
        return chosen
    found = endpoints.read(state_dir_of(environ))
    return found.address if found is not None else DEFAULT_ADDRESS


def state_dir_of(environ: Mapping[str, str]) -> Path:
    return Path(environ.get(STATE_DIR_VARIABLE) or Path.home() / ".trainyard").expanduser()


def is_local(address: str) -> bool:
    """Return whether an address is this machine's own."""
    return address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")
