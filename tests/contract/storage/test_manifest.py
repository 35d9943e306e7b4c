from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import IntegrityError, ObjectNotFound
from services.storage import layout
from services.storage.manifest import FileEntry, Manifest, download_directory, upload_directory
from services.storage.port import ObjectInfo, ObjectStore

PREFIX = layout.checkpoint_prefix("lab", "j1", 12, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "golden").mkdir(parents=True)
    (source / "model.safetensors").write_bytes(b"weights" * 1000)
    (source / "state.json").write_text("{}")
    (source / "golden" / "000.png").write_bytes(b"picture")
    return source


class _Recording:
    """Passes everything on and notes what was stored, in order; may break before a given object."""

    def __init__(self, store: ObjectStore, *, breaks_before: str = "") -> None:
        self._store = store
        self._breaks_before = breaks_before
        self.stored: list[str] = []

    def put(self, key: str, source: Any, **options: Any) -> ObjectInfo:
        if self._breaks_before and key.endswith(self._breaks_before):
            raise ConnectionResetError
        self.stored.append(key)
        return self._store.put(key, source, **options)

    def put_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
        with path.open("rb") as source:
            return self.put(key, source, **options)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)


def test_a_directory_survives_the_round_trip(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    manifest = upload_directory(store, PREFIX, folder, meta={"torch": "2.15"}, progress=lambda *c: calls.append(c))
    fetched = download_directory(store, PREFIX, tmp_path / "target", manifest.sha256())

    assert fetched == manifest
    for name in manifest.files:
        assert (tmp_path / "target" / name).read_bytes() == (folder / name).read_bytes()
    assert calls[-1] == (manifest.size_bytes, manifest.size_bytes)


def test_the_manifest_is_stored_last(store: ObjectStore, folder: Path) -> None:
    recording = _Recording(store)

    upload_directory(recording, PREFIX, folder)  # type: ignore[arg-type]

    assert recording.stored[-1] == layout.manifest(PREFIX)
    assert len(recording.stored) == 4


def test_an_upload_cut_short_is_no_checkpoint(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        upload_directory(_Recording(store, breaks_before="state.json"), PREFIX, folder)  # type: ignore[arg-type]

    assert not store.exists(layout.manifest(PREFIX))
    with pytest.raises(ObjectNotFound):
        download_directory(store, PREFIX, tmp_path / "target", "0" * 64)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("harm", ["flip_a_bit", "truncate"])
@pytest.mark.parametrize("name", ["model.safetensors", "golden/000.png", "manifest.json"])
def test_a_spoiled_file_spoils_the_whole_download(
    backend: Any, folder: Path, tmp_path: Path, name: str, harm: str
) -> None:
    manifest = upload_directory(backend.store, PREFIX, folder)
    getattr(backend, harm)(PREFIX + name)

    with pytest.raises(IntegrityError):
        download_directory(backend.store, PREFIX, tmp_path / "target", manifest.sha256())

    assert not (tmp_path / "target").exists()


def test_a_manifest_that_replaced_the_committed_one_is_refused(
    store: ObjectStore, folder: Path, tmp_path: Path
) -> None:
    committed = upload_directory(store, PREFIX, folder)
    (folder / "state.json").write_text('{"other": true}')
    upload_directory(store, PREFIX, folder)

    with pytest.raises(IntegrityError):
        download_directory(store, PREFIX, tmp_path / "target", committed.sha256())


def test_a_missing_blob_is_noticed(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    manifest = upload_directory(store, PREFIX, folder)
    store.delete(PREFIX + "state.json")

    with pytest.raises(ObjectNotFound):
        download_directory(store, PREFIX, tmp_path / "target", manifest.sha256())


def test_a_manifest_with_a_climbing_name_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    evil = Manifest({"../../evil": FileEntry(1, "0" * 64)})
    store.put(layout.manifest(PREFIX), evil.to_json())

    with pytest.raises(IntegrityError, match="not a manifest"):
        download_directory(store, PREFIX, tmp_path / "deep" / "target", evil.sha256())

    assert not (tmp_path / "evil").exists()


def test_a_link_in_a_directory_is_not_followed(store: ObjectStore, folder: Path) -> None:
    (folder / "secret").symlink_to("/etc/hostname")

    with pytest.raises(ValueError, match="not a regular file: secret"):
        upload_directory(store, PREFIX, folder)
