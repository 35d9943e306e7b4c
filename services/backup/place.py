"""The database and the store of one platform, opened from its settings and closed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.core.settings import Settings
from services.db.database import Database
from services.storage.open import open_store
from services.storage.port import ObjectStore


@dataclass(frozen=True, slots=True)
class Platform:
    """What a backup is made of, and what one is restored into."""

    settings: Settings
    database: Database
    store: ObjectStore


@contextmanager
def open_platform(settings: Settings) -> Iterator[Platform]:
    """Open both; neither is made or contacted before it is used."""
    database = Database(settings.resolved_database_url)
    if not database.is_postgres and database.url.database:
        # SQLite makes the file, not the folder. It holds who may do what: nobody else may read it.
        Path(database.url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield Platform(settings, database, open_store(settings))
    finally:
        database.dispose()
