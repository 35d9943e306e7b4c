from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from services.agent.archive_check import ArchiveRejected, ZipLimits, check_archive
from services.agent.model_store import ModelStore
from services.core.answers import same_answer
from services.core.errors import IntegrityError, ObjectNotFound
from services.storage.local import LocalStore

MANIFEST = "MAR-INF/MANIFEST.json"
LIMITS = ZipLimits(members=5, total_bytes=10_000, ratio=20, name_characters=40, depth=3)


def zipped(members: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def link() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(MANIFEST, b"{}")
        info = zipfile.ZipInfo("weights")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return stream.getvalue()


def lying_about_its_size() -> bytes:
    data = bytearray(zipped({MANIFEST: b"{}", "bomb": b"\0" * 9000}, compression=zipfile.ZIP_DEFLATED))
    entry = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, 10)
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"no zip", "damaged", id="no zip"),
        pytest.param(zipped({MANIFEST: b"{}"})[:-30], "damaged", id="cut short"),
        pytest.param(zipped({"a": b""}), "has no MAR-INF", id="no manifest"),
        pytest.param(zipped({MANIFEST: b"", **{str(n): b"" for n in range(5)}}), "6 members", id="too many members"),
        pytest.param(zipped({MANIFEST: b"", "../../x": b""}), "name '../../x'", id="climbs out"),
        pytest.param(zipped({MANIFEST: b"", "/etc/x": b""}), "name '/etc/x'", id="absolute"),
        pytest.param(zipped({MANIFEST: b"", "a\\..\\x": b""}), "name", id="climbs out on another system"),
        pytest.param(zipped({MANIFEST: b"", "a/b/c/d": b""}), "name", id="too deep"),
        pytest.param(zipped({MANIFEST: b"", "n" * 41: b""}), "name", id="name too long"),
        pytest.param(zipped({MANIFEST: b"", "x": b"1" * 10_001}), "more than", id="too big"),
        pytest.param(
            zipped({MANIFEST: b"", "x": b"\0" * 9_000}, compression=zipfile.ZIP_DEFLATED), "more than", id="bomb"
        ),
        pytest.param(lying_about_its_size(), "damaged|more than", id="a header that lies about the size"),
        pytest.param(link(), "no plain file", id="a link"),
    ],
)
def test_an_archive_beyond_the_limits_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.mar"
    path.write_bytes(content)

    with pytest.raises(ArchiveRejected, match=reason):
        check_archive(path, LIMITS)


def test_two_members_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, b"{}")
        archive.writestr("x", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x", b"2")

    with pytest.raises(ArchiveRejected, match="one name"):
        check_archive(path, LIMITS)


@pytest.fixture
def objects(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def models(tmp_path: Path, objects: LocalStore) -> ModelStore:
    directory = tmp_path / "model-store"
    directory.mkdir()
    return ModelStore(directory, objects)


def stored(objects: LocalStore, content: bytes) -> str:
    objects.put("projects/p/a.mar", content)
    return hashlib.sha256(content).hexdigest()


def test_a_fetched_archive_is_named_by_its_digest(models, objects):
    sha256 = stored(objects, zipped({MANIFEST: b"{}"}))

    assert models.fetch(key="projects/p/a.mar", sha256=sha256) == f"{sha256}.mar"
    assert models.fetch(key="projects/p/a.mar", sha256=sha256) == f"{sha256}.mar"


def test_other_bytes_than_were_built_never_reach_the_model_store(models, objects):
    stored(objects, zipped({MANIFEST: b"{}"}))

    with pytest.raises(IntegrityError):
        models.fetch(key="projects/p/a.mar", sha256="0" * 64)
    assert list(models.directory.iterdir()) == []


def test_a_file_that_rotted_on_the_disk_is_fetched_again(models, objects):
    sha256 = stored(objects, zipped({MANIFEST: b"{}"}))
    name = models.fetch(key="projects/p/a.mar", sha256=sha256)
    (models.directory / name).write_bytes(b"rot")

    models.fetch(key="projects/p/a.mar", sha256=sha256)

    check_archive(models.directory / name)


def test_a_refused_archive_leaves_nothing(models, objects):
    sha256 = stored(objects, b"no zip")

    with pytest.raises(ArchiveRejected):
        models.fetch(key="projects/p/a.mar", sha256=sha256)
    assert list(models.directory.iterdir()) == []


def test_a_missing_archive_is_no_refusal(models):
    with pytest.raises(ObjectNotFound):
        models.fetch(key="projects/p/gone.mar", sha256="0" * 64)


def test_files_nobody_needs_are_swept(models, objects):
    sha256 = stored(objects, zipped({MANIFEST: b"{}"}))
    models.fetch(key="projects/p/a.mar", sha256=sha256)
    (models.directory / "other.mar").write_bytes(b"")

    models.sweep([sha256])

    assert [path.stem for path in models.directory.iterdir()] == [sha256]


@pytest.mark.parametrize(
    ("actual", "is_same"),
    [
        pytest.param({"boxes": [[10, 20.0]], "scores": [0.91], "label": "cat"}, True, id="the same"),
        pytest.param({"boxes": [[11.5, 20.0]], "scores": [0.93], "label": "cat"}, True, id="within rounding"),
        pytest.param({"boxes": [[14, 20.0]], "scores": [0.91], "label": "cat"}, False, id="a box moved"),
        pytest.param({"boxes": [[10, 20.0]], "scores": [0.5], "label": "cat"}, False, id="another score"),
        pytest.param({"boxes": [[10, 20.0]], "scores": [0.91], "label": "dog"}, False, id="another word"),
        pytest.param({"boxes": [], "scores": [0.91], "label": "cat"}, False, id="a box missing"),
        pytest.param({"error": "no"}, False, id="another shape"),
    ],
)
def test_answers_agree_within_rounding(actual, is_same):
    expected = {"boxes": [[10.0, 20.0]], "scores": [0.91], "label": "cat"}

    assert same_answer(expected, actual) is is_same


def test_pictures_of_an_answer_need_only_be_there():
    expected = {"images": [{"b64": "AAAA"}, {"b64": "AAAB"}]}

    assert same_answer(expected, {"images": [{"b64": "AAAA"}, {"b64": "AAAC"}]})
    assert not same_answer(expected, {"images": [{"b64": "AAAA"}, {"b64": ""}]})
    assert not same_answer(expected, {"images": [{"b64": "AAAA"}]})
    assert not same_answer(expected, {"images": [{"b64": "AAAA"}, {"error": "no"}]})


def test_an_archive_that_came_up_here_is_known_to_the_next_agent_until_it_is_swept(tmp_path):
    store = ModelStore(tmp_path, LocalStore(tmp_path / "objects"))
    (tmp_path / "a.mar").touch()
    assert not store.has_come_up("a")

    store.note_come_up("a")

    again = ModelStore(tmp_path, LocalStore(tmp_path / "objects"))
    assert again.has_come_up("a")
    again.sweep([])
    assert not again.has_come_up("a")
