"""The state directory: made for its owner alone, and named in words where it cannot be used."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.core.errors import SettingsInvalid

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
# What parts make there, by the beginning of its name.
_OURS = (
    "metadata.sqlite3", "objects", "broker", "logs", "token", ".token.", "up.lock", "endpoints.", "last-endpoints.",
    "torchserve", "workers", "cache", "salvage", "uploads", "imports",
)  # fmt: skip


def log_dir(state_dir: Path) -> Path:
    return state_dir / "logs"


def make(state_dir: Path) -> None:
    """Make the directory, for its owner alone, and that of its logs.

    Raises:
        SettingsInvalid: it is no directory, or this user may not write there.
    """
    with faults_named(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_dir(state_dir).mkdir(exist_ok=True)


def close(state_dir: Path) -> str:
    """Take a platform's directory from other users; return what there is to say about it, or nothing.

    One that holds other things too keeps its mode: as /var/lib, it may be needed by everybody.
    """
    if not _is_open(state_dir):
        return ""
    foreign = [name for name in sorted(os.listdir(state_dir)) if not name.startswith(_OURS)]
    if foreign:
        return (
            f"other users may look into {state_dir}, which holds {foreign[0]} besides a platform: "
            "close it with `chmod 700`, or choose another TRAINYARD_STATE_DIR"
        )
    # A volume may refuse it, and works as it is.
    with suppress(OSError):
        state_dir.chmod(stat.S_IMODE(state_dir.stat().st_mode) & 0o700)
    return "" if _is_open(state_dir) else f"other users could look into {state_dir}; now it is yours alone"


@contextmanager
def faults_named(state_dir: Path) -> Iterator[None]:
    """Name the setting where its directory is the cause of an error.

    Raises:
        SettingsInvalid: it is no directory, or this user may not use it.
    """
    setting = f"TRAINYARD_STATE_DIR={state_dir}"
    try:
        yield
    except (FileExistsError, NotADirectoryError) as err:
        raise SettingsInvalid(
            f"{setting} cannot be the state directory ({err.filename}: {err.strerror}); choose another place"
        ) from err
    except OSError as err:
        if err.errno not in _DENIED:
            raise
        raise SettingsInvalid(
            f"{setting}: {err.filename} may not be used by this user ({err.strerror}); "
            f"give the directory to user {os.geteuid()}, or choose another place"
        ) from err


def _is_open(state_dir: Path) -> bool:
    """Tell whether others may enter a directory that this user can close; a shared one such as /tmp is none."""
    found = state_dir.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX and bool(found.st_mode & 0o077)
