"""What the commands of administrators share: an open database, and its errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from services.client.command import CommandFailed
from services.core.environment import read_settings
from services.core.errors import DatabaseUnavailable, PlatformError
from services.identity.admin import Admin, open_admin


@contextmanager
def administering() -> Iterator[Admin]:
    """Open the database of the environment.

    Raises:
        CommandFailed: whatever the platform refuses.
    """
    settings = read_settings()
    try:
        with open_admin(settings) as admin:
            if not admin.is_ready():
                raise CommandFailed("the database has not been made yet: run `trainyard up`, or migrate it")
            yield admin
    except DatabaseUnavailable as err:
        raise CommandFailed(f"{err} Run `trainyard up` once, or set TRAINYARD_DATABASE_URL") from err
    except PlatformError as err:
        raise CommandFailed(str(err)) from err


def local_time(moment: datetime | None) -> str:
    """Return local time to the second, or nothing for an unset time."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
