from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import IntegrityError, ObjectNotFound
from services.storage.port import ObjectStore

KEY = "projects/lab/jobs/j1/checkpoints/0000000001-1/model.safetensors"
BODY = bytes(range(256)) * 64


class _Abort(Exception):
    pass


class _BreaksHalfway(io.RawIOBase):
    """A source that dies after its first chunk, as a client does whose connection is cut."""

    def __init__(self) -> None:
        self._has_read = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        del size
        if self._has_read:
            raise _Abort
        self._has_read = True
        return BODY


class _NotSeekable(io.RawIOBase):
    def __init__(self, body: bytes) -> None:
        self._inner = io.BytesIO(body)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(size)


def test_what_is_put_is_read_back_with_its_size_and_digest(store: ObjectStore) -> None:
    info = store.put(KEY, BODY, size_bytes=len(BODY))

    assert store.get(KEY) == BODY
    assert info.sha256 == hashlib.sha256(BODY).hexdigest()
    assert store.stat(KEY) == info
    with store.open(KEY) as source:
        assert source.read(10) + source.read() == BODY


@pytest.mark.parametrize("body", [b"", b"x", BODY * 100], ids=["empty", "one byte", "more than one chunk"])
def test_objects_of_any_size_pass_as_files_and_streams(store: ObjectStore, tmp_path: Path, body: bytes) -> None:
    (tmp_path / "source").write_bytes(body)

    by_file = store.put_file("a/file", tmp_path / "source")
    by_stream = store.put("a/stream", _NotSeekable(body))  # type: ignore[arg-type]

    assert by_file.sha256 == by_stream.sha256 == hashlib.sha256(body).hexdigest()
    store.get_file("a/stream", tmp_path / "target", sha256=by_file.sha256)
    assert (tmp_path / "target").read_bytes() == body


def test_a_source_that_breaks_halfway_leaves_no_object(store: ObjectStore) -> None:
    with pytest.raises(_Abort):
        store.put(KEY, _BreaksHalfway())  # type: ignore[arg-type]

    assert not store.exists(KEY)
    assert list(store.list("")) == []


def test_a_source_of_another_length_than_announced_leaves_no_object(store: ObjectStore) -> None:
    with pytest.raises(IntegrityError, match="announced"):
        store.put(KEY, io.BytesIO(BODY), size_bytes=len(BODY) + 1)

    assert not store.exists(KEY)


def test_a_reader_never_sees_an_object_half_written(store: ObjectStore) -> None:
    bodies = [bytes([n]) * 300_000 for n in range(20)]
    seen: list[Any] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            try:
                with store.open(KEY) as source:
                    seen.append(source.read())
            except ObjectNotFound:
                continue

    reader = threading.Thread(target=watch)
    reader.start()
    for body in bodies:
        store.put(KEY, body)
    is_over.set()
    reader.join()

    assert all(body in bodies for body in seen)


def test_a_put_replaces_the_whole_object(store: ObjectStore) -> None:
    store.put(KEY, BODY)

    store.put(KEY, b"short")

    assert store.get(KEY, sha256=hashlib.sha256(b"short").hexdigest()) == b"short"


def test_bytes_other_than_the_expected_ones_are_refused_on_the_way_out(store: ObjectStore, tmp_path: Path) -> None:
    store.put(KEY, BODY)
    expected = hashlib.sha256(b"something else").hexdigest()

    with pytest.raises(IntegrityError):
        store.get(KEY, sha256=expected)
    with pytest.raises(IntegrityError):
        store.get_file(KEY, tmp_path / "target", sha256=expected)

    assert list(tmp_path.glob("target")) == []
    assert list(tmp_path.glob(".part-*")) == []


@pytest.mark.parametrize("harm", ["flip_a_bit", "truncate"])
def test_an_object_spoiled_at_rest_is_refused_even_when_nobody_names_its_digest(
    backend: Any, tmp_path: Path, harm: str
) -> None:
    backend.store.put(KEY, BODY)

    getattr(backend, harm)(KEY)

    with pytest.raises(IntegrityError, match="sha256"):
        backend.store.get(KEY)
    with pytest.raises(IntegrityError):
        backend.store.get_file(KEY, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_missing_object_says_so_everywhere(store: ObjectStore, tmp_path: Path) -> None:
    store.put("other", b"x")

    for read in (store.get, store.stat, lambda key: store.open(key).__enter__()):
        with pytest.raises(ObjectNotFound):
            read(KEY)
    with pytest.raises(ObjectNotFound):
        store.get_file(KEY, tmp_path / "target")
    assert not store.exists(KEY)


def test_a_folder_is_no_object(store: ObjectStore) -> None:
    store.put("a/b/c", b"x")

    assert not store.exists("a/b")
    with pytest.raises(ObjectNotFound):
        store.stat("a/b")


def test_a_store_nobody_wrote_to_is_empty(store: ObjectStore) -> None:
    assert list(store.list("")) == []
    assert not store.exists(KEY)
    store.delete(KEY)
    store.delete_prefix("projects/")


def test_listing_yields_keys_in_order_under_the_prefix_only(store: ObjectStore) -> None:
    for key in ("p/b", "p/a/2", "p/a/1", "pq/x", "q"):
        store.put(key, key.encode())

    assert [(info.key, info.size_bytes) for info in store.list("p/")] == [("p/a/1", 5), ("p/a/2", 5), ("p/b", 3)]
    assert [info.key for info in store.list("")] == ["p/a/1", "p/a/2", "p/b", "pq/x", "q"]


def test_deleting_a_prefix_spares_its_neighbours(store: ObjectStore) -> None:
    for key in ("p/1-1/a", "p/1-1/deep/er/b", "p/1-10/a", "p/1"):
        store.put(key, b"x")

    store.delete_prefix("p/1-1/")

    assert [info.key for info in store.list("p/")] == ["p/1", "p/1-10/a"]


def test_deleting_is_idempotent_and_the_key_may_be_written_again(store: ObjectStore) -> None:
    store.put(KEY, BODY)
    store.delete(KEY)
    store.delete(KEY)

    assert not store.exists(KEY)
    store.put(KEY, b"again")
    assert store.get(KEY) == b"again"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("../outside", id="parent"),
        pytest.param("a/../../outside", id="climbing"),
        pytest.param("a//b", id="empty part"),
        pytest.param("a/", id="folder"),
        pytest.param("a/./b", id="dot"),
        pytest.param("a\\..\\b", id="backslash"),
        pytest.param("a\0b", id="nul"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a/" * 500 + "b", id="too long"),
        pytest.param("na\u00efve", id="not ascii"),
    ],
)
def test_a_key_that_is_no_plain_path_is_refused_by_every_method(store: ObjectStore, tmp_path: Path, key: str) -> None:
    calls = [
        lambda: store.put(key, b"x"),
        lambda: store.put_file(key, Path(__file__)),
        lambda: store.get(key),
        lambda: store.get_file(key, tmp_path / "target"),
        lambda: store.open(key).__enter__(),
        lambda: store.stat(key),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: store.presigned_get(key, 60) or store.stat(key),
    ]

    for call in calls:
        with pytest.raises(ValueError, match="not an object key"):
            call()


@pytest.mark.parametrize("prefix", ["", "/", "a", "../", "a/../"])
def test_only_a_plain_folder_can_be_deleted_or_listed(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ValueError, match="not an object"):
        store.delete_prefix(prefix)
    if prefix:
        with pytest.raises(ValueError, match="not an object"):
            list(store.list(prefix))


def test_many_threads_may_write_one_key_and_the_last_one_stands_verified(store: ObjectStore) -> None:
    bodies = [bytes([n]) * 50_000 for n in range(8)]
    writers = [threading.Thread(target=store.put, args=(KEY, body)) for body in bodies]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert store.get(KEY) in bodies
