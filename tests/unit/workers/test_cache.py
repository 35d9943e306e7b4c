from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.core.errors import IntegrityError
from services.storage.local import LocalStore
from services.storage.manifest import upload_directory
from workers.cache import DatasetCache, DatasetRef
from workers.stop import Stopped, StopReason


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects")


def stored_dataset(store: LocalStore, root: Path, name: str, size_bytes: int = 100) -> DatasetRef:
    source = root / f"source-{name}"
    source.mkdir()
    (source / "images-00000.tar").write_bytes(name.encode() * (size_bytes // len(name)))
    prefix = f"projects/p/datasets/d/{name}/"
    manifest = upload_directory(store, prefix, source)
    return DatasetRef(prefix, manifest.sha256(), manifest.size_bytes)


def open_cache(tmp_path: Path, store: LocalStore, *, limit_bytes: int = 10**6) -> DatasetCache:
    return DatasetCache(tmp_path / "cache", store, limit_bytes=limit_bytes)


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}


def test_a_dataset_is_fetched_once(tmp_path: Path, store: LocalStore) -> None:
    ref = stored_dataset(store, tmp_path, "a")
    cache = open_cache(tmp_path, store)
    with cache.hold(ref) as first:
        assert (first / "images-00000.tar").read_bytes() == b"a" * 100
    store.delete_prefix(ref.prefix)

    with cache.hold(ref) as second:
        assert second == first
        assert (second / "images-00000.tar").exists()


def test_a_damaged_dataset_never_appears(tmp_path: Path, store: LocalStore) -> None:
    ref = stored_dataset(store, tmp_path, "a")
    store.put(f"{ref.prefix}images-00000.tar", b"b" * 100)

    with pytest.raises(IntegrityError), open_cache(tmp_path, store).hold(ref):
        pass

    assert cached(tmp_path) == set()


def test_the_least_recently_used_goes_when_room_is_needed(tmp_path: Path, store: LocalStore) -> None:
    old, used, new = (stored_dataset(store, tmp_path, name) for name in "abc")
    cache = open_cache(tmp_path, store, limit_bytes=250)
    for age, ref in ((300, old), (200, used)):
        with cache.hold(ref):
            pass
        lock = tmp_path / "cache" / f"{ref.manifest_sha256}.lock"
        os.utime(lock, (lock.stat().st_atime - age, lock.stat().st_mtime - age))

    with cache.hold(new):
        pass

    assert cached(tmp_path) == {used.manifest_sha256, new.manifest_sha256}


def test_a_dataset_in_use_is_never_evicted(tmp_path: Path, store: LocalStore) -> None:
    held, new = (stored_dataset(store, tmp_path, name) for name in "ab")
    cache = open_cache(tmp_path, store, limit_bytes=150)

    with cache.hold(held) as directory, cache.hold(new):
        assert (directory / "images-00000.tar").exists()


def test_a_stopped_download_leaves_nothing(tmp_path: Path, store: LocalStore) -> None:
    ref = stored_dataset(store, tmp_path, "a")

    def stop(*_: int) -> None:
        raise Stopped(StopReason.CANCEL)

    with pytest.raises(Stopped), open_cache(tmp_path, store).hold(ref, progress=stop):
        pass

    assert cached(tmp_path) == set()


def test_a_download_cut_by_a_crash_is_swept(tmp_path: Path, store: LocalStore) -> None:
    cache = open_cache(tmp_path, store)
    (tmp_path / "cache" / ".part-abc").mkdir()

    cache.sweep()

    assert cached(tmp_path) == set()
