from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.builders.toy_serving import write_toy_bundle
from workers.serving.archive import HANDLER_FILE, MANIFEST, ArchiveFile, bundle_members, write_archive


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "bundle")


def archived(bundle: Path, path: Path) -> ArchiveFile:
    return write_archive(path, members={**bundle_members(bundle), "serving.json": b"{}"}, model_name="toy")


def test_equal_contents_give_equal_bytes_wherever_and_whenever_they_are_written(bundle, tmp_path):
    first = archived(bundle, tmp_path / "a.mar")
    (tmp_path / "later").mkdir()
    for path in bundle.rglob("*"):
        path.touch()

    second = archived(bundle, tmp_path / "later" / "b.mar")

    assert (second.sha256, second.size_bytes, second.version) == (first.sha256, first.size_bytes, first.version)
    assert second.path.read_bytes() == first.path.read_bytes()


def test_other_contents_give_another_version_so_that_both_can_be_registered(bundle, tmp_path):
    first = archived(bundle, tmp_path / "a.mar")
    answers = bundle / "golden" / "answers.json"
    answers.write_text(answers.read_text() + " ")

    assert archived(bundle, tmp_path / "b.mar").version != first.version


def test_the_manifest_is_what_torchserve_reads(bundle, tmp_path):
    written = archived(bundle, tmp_path / "a.mar")

    with zipfile.ZipFile(written.path) as archive:
        manifest = json.loads(archive.read(MANIFEST))
        names = archive.namelist()

    assert manifest["runtime"] == "python"
    assert manifest["model"] == {"modelName": "toy", "handler": HANDLER_FILE, "modelVersion": written.version}
    assert HANDLER_FILE in names
    assert names == sorted(names)


def test_strangers_in_a_bundle_directory_stay_out(bundle, tmp_path):
    (bundle / "notes.txt").write_text("mine")

    written = archived(bundle, tmp_path / "a.mar")

    with zipfile.ZipFile(written.path) as archive:
        assert "notes.txt" not in archive.namelist()


def test_a_failed_write_leaves_no_archive(bundle, tmp_path):
    with pytest.raises(FileNotFoundError):
        write_archive(tmp_path / "a.mar", members={"gone": bundle / "gone"}, model_name="toy")

    assert not (tmp_path / "a.mar").exists()
