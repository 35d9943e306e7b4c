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
_OURS = {"metadata.sqlite3", "token", "objects"}


def log_dir(state_dir: Path) -> Path:
    return state_dir / "logs"


def prepare(state_dir: Path) -> bool:
    """Make the directory and that of its logs; return whether other users could look into it and no longer can.

    Raises:
        SettingsInvalid: it is no directory, or this user may not write there.
    """
    with faults_named(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_closed = _is_open(state_dir) and _close(state_dir)
        log_dir(state_dir).mkdir(exist_ok=True)
    return is_closed


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
    """Tell whether the directory is a platform's, belongs to this user, and lets others in.

    Whoever names /tmp or another directory that serves more than a platform has chosen its mode.
    """
    found = state_dir.stat()
    names = set(os.listdir(state_dir))
    is_ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX and (not names or bool(names & _OURS))
    return is_ours and bool(found.st_mode & 0o077)


def _close(state_dir: Path) -> bool:
    # A volume may refuse it, and works as it is.
    with suppress(OSError):
        state_dir.chmod(stat.S_IMODE(state_dir.stat().st_mode) & 0o700)
        return not _is_open(state_dir)
    return False
