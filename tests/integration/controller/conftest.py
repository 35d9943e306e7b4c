"""A migrated database, a store of local files and settings that keep everything in the test's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.broker.transport import FilesTransport
from services.core.settings import Settings
from services.db.database import Database
from services.storage.open import open_store
from services.storage.port import ObjectStore


@pytest.fixture(autouse=True)
def _no_bindings_of_another_folder() -> None:
    # kombu remembers bindings for the whole process, whatever folder they were made in.
    FilesTransport.global_state.clear()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    timings = {"dispatch_interval": 5.0, "redispatch_after": 60.0, "reap_interval": 0.2, "lease_ttl": 1.0}
    return Settings.model_validate({"state_dir": tmp_path, "timings": timings})


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    database.migrate()
    yield database
    database.dispose()


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)
