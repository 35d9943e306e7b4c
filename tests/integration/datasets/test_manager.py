"""An import is a version or it is nothing: rows, objects and temporary files agree after every end."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import (
    DatabaseUnavailable,
    DatasetInvalid,
    DatasetNotFound,
    IdempotencyConflict,
    RequestInvalid,
    StoreUnavailable,
)
from services.core.retry import Backoff
from services.core.settings import Settings
from services.datasets.manager import DatasetManager
from services.db.database import Database
from services.storage import layout
from services.storage.local import LocalStore
from services.storage.manifest import download_directory
from tests.builders import datasets as build
from tests.builders.hostile import ARCHIVES, CONTENTS, SMALL

PROJECT = "lab"


class BreakingStore(LocalStore):
    """A local store whose n-th upload fails, as a full bucket's does."""

    breaks_at = 0
    count = 0

    def put_file(self, key: str, path: Path, **options: Any) -> Any:
        self.count += 1
        if self.count == self.breaks_at:
            raise StoreUnavailable
        return super().put_file(key, path, **options)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state")


@pytest.fixture
def database(settings: Settings) -> Any:
    database = Database(settings.resolved_database_url)
    database.migrate()
    yield database
    database.dispose()


@pytest.fixture
def store(settings: Settings) -> BreakingStore:
    return BreakingStore(settings.state_dir / "objects")


@pytest.fixture
def manager(database: Database, store: BreakingStore, settings: Settings) -> DatasetManager:
    return DatasetManager(database, store, settings)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return build.zipped(tmp_path / "pets.zip", build.coco().content())


def create(manager: DatasetManager, archive: Path, **changes: Any) -> Any:
    arguments = {"request_id": "r1", "dataset_id": "pets", "archive_path": archive} | changes
    return manager.create(PROJECT, **arguments)


def leftovers(store: LocalStore, settings: Settings) -> list[str]:
    work = [path.name for path in (settings.state_dir / "imports").iterdir() if path.name != "sweep.lock"]
    return [info.key for info in store.list("")] + work


def test_an_import_is_a_version_that_downloads_verified(
    manager: DatasetManager, store: LocalStore, settings: Settings, archive: Path, tmp_path: Path
) -> None:
    version = create(manager, archive, display_name="Pets of the lab")

    assert (version.version, version.classes, version.format) == (1, ["cat", "dog"], "coco")
    assert version.counts == {"train": {"images": 3, "boxes": 3}, "val": {"images": 2, "boxes": 2}}
    assert version.report["display_name"] == "Pets of the lab"
    prefix = layout.dataset_prefix(PROJECT, "pets", version.id)
    download_directory(store, prefix, tmp_path / "copy", version.manifest_sha256)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "annotations.jsonl",
        "dataset.json",
        "images-00000.tar",
    ]
    assert archive.exists()
    assert list((settings.state_dir / "imports").iterdir()) == [settings.state_dir / "imports" / "sweep.lock"]


def test_the_same_request_returns_the_same_version_and_another_body_is_refused(
    manager: DatasetManager, store: LocalStore, archive: Path
) -> None:
    first = create(manager, archive)

    assert create(manager, archive) == first
    with pytest.raises(IdempotencyConflict):
        create(manager, archive, display_name="another")
    assert {info.key.split("/")[4] for info in store.list("")} == {first.id}


def test_one_request_sent_twice_at_once_is_one_version(
    manager: DatasetManager, store: LocalStore, archive: Path
) -> None:
    made: list[Any] = []
    threads = [threading.Thread(target=lambda: made.append(create(manager, archive))) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 2
    assert made[0] == made[1]
    assert {info.key.split("/")[4] for info in store.list("")} == {made[0].id}


def test_another_import_of_a_dataset_is_its_next_version(manager: DatasetManager, archive: Path) -> None:
    create(manager, archive, request_id="r1")
    second = create(manager, archive, request_id="r2")

    assert second.version == 2
    assert manager.get(PROJECT, "pets").id == second.id
    assert manager.get(PROJECT, "pets", 1).version == 1
    assert [version.id for version in manager.list(PROJECT, page_size=10)] == [second.id]


def test_a_deleted_dataset_is_gone(manager: DatasetManager, archive: Path) -> None:
    create(manager, archive)

    manager.delete(PROJECT, "pets")

    assert manager.list(PROJECT, page_size=10) == []
    with pytest.raises(DatasetNotFound):
        manager.get(PROJECT, "pets")


@pytest.mark.parametrize(
    "name", ["zip bomb", "zip that climbs out", "a truncated jpeg", "broken json", "voc with a billion laughs"]
)
def test_a_refused_dataset_leaves_nothing(
    database: Database, store: LocalStore, settings: Settings, tmp_path: Path, name: str
) -> None:
    manager = DatasetManager(database, store, settings, limits=SMALL)
    archive = (ARCHIVES | CONTENTS)[name].make(tmp_path)

    with pytest.raises(DatasetInvalid):
        create(manager, archive)

    assert leftovers(store, settings) == []
    with pytest.raises(DatasetNotFound):
        manager.get(PROJECT, "pets")


def test_an_upload_that_fails_halfway_leaves_nothing_and_the_request_may_be_repeated(
    manager: DatasetManager, store: BreakingStore, settings: Settings, archive: Path
) -> None:
    store.breaks_at = 2

    with pytest.raises(StoreUnavailable):
        create(manager, archive)

    assert leftovers(store, settings) == []
    assert create(manager, archive).version == 1


def test_objects_stay_when_nobody_knows_whether_the_row_was_stored(
    store: LocalStore, settings: Settings, archive: Path, database: Database
) -> None:
    class Ambiguous(Database):
        """Commits and then loses the connection before it can say so."""

        def write(self) -> Any:
            from contextlib import contextmanager

            @contextmanager
            def transaction() -> Any:
                with Database.write(self) as session:
                    yield session
                raise DatabaseUnavailable

            return transaction()

    ambiguous = Ambiguous(settings.resolved_database_url)
    with pytest.raises(DatabaseUnavailable):
        create(DatasetManager(ambiguous, store, settings, backoff=Backoff(base_seconds=0.01)), archive)
    ambiguous.dispose()

    version = create(DatasetManager(database, store, settings), archive)

    assert version.version == 1
    assert store.exists(version.manifest_key)


def test_everything_wrong_with_a_request_is_said_before_the_archive_is_read(
    manager: DatasetManager, tmp_path: Path
) -> None:
    with pytest.raises(RequestInvalid) as caught:
        create(manager, tmp_path / "missing", dataset_id="Pets!", format="kitti", family="gan")

    assert {violation.field for violation in caught.value.violations} == {"dataset_id", "format", "family"}


def test_folders_of_imports_that_died_are_swept_and_those_that_live_are_not(
    manager: DatasetManager, settings: Settings, archive: Path
) -> None:
    root = settings.state_dir / "imports"
    for name in ("dead", "alive"):
        (root / name).mkdir(parents=True)
    alive = os.open(root / "alive", os.O_RDONLY)
    fcntl.flock(alive, fcntl.LOCK_EX)

    create(manager, archive)

    assert {path.name for path in root.iterdir()} == {"alive", "sweep.lock"}
    os.close(alive)
