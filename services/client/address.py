"""Where the platform answers: what was asked for, else the environment, else the one of the state directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.client.errors import NoPlatform
from services.up import endpoints
from services.up.lock import holder

DEFAULT_ADDRESS = "127.0.0.1:7070"
SERVER_VARIABLE = "TRAINYARD_SERVER"
STATE_DIR_VARIABLE = "TRAINYARD_STATE_DIR"


def resolve_address(address: str | None, environ: Mapping[str, str], *, has_token: bool = False) -> str:
    """Return where to call; `has_token` says that the caller named a token.

    The usual port is for whoever named a token, as for a platform in containers, and for a machine that never ran a
    platform. Elsewhere nobody is called: what listens there may be anybody's.

    Raises:
        NoPlatform: nothing was named, and the platform of the state directory does not run.
    """
    if chosen := address or environ.get(SERVER_VARIABLE):
        return chosen
    state_dir = state_dir_of(environ)
    if (found := local_address(environ)) is not None:
        return found
    if has_token or not state_dir.exists():
        return DEFAULT_ADDRESS
    if (pid := holder(state_dir)) is not None:
        raise NoPlatform(f"process {pid} is starting or stopping the platform in {state_dir}; ask again")
    remedy = "start one with `trainyard up`, or name one with --server or TRAINYARD_SERVER"
    raise NoPlatform(f"no platform runs in {state_dir}: {remedy}")


def local_address(environ: Mapping[str, str]) -> str | None:
    """Return where the platform that runs in the state directory answers, None where none runs."""
    found = endpoints.running(state_dir_of(environ))
    return None if found is None else found.address


def state_dir_of(environ: Mapping[str, str]) -> Path:
    return Path(environ.get(STATE_DIR_VARIABLE) or Path.home() / ".trainyard").expanduser()


def is_local(address: str) -> bool:
    """Return whether an address is this machine's own."""
    return address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")
