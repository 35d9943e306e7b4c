from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from services.datasets.limits import ImportLimits
from tests.builders import datasets as build


def test_every_image_is_read_at_its_offset_without_unpacking(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=5, val=2)

    done = importing(folder.write(tmp_path / "source"))

    originals = {hashlib.sha256(body).hexdigest(): body for body in folder.files.values()}
    assert len(done.records) == 7
    for record in done.records:
        descriptor = os.open(done.directory / record["shard"], os.O_RDONLY)
        body = os.pread(descriptor, record["size"], record["offset"])
        os.close(descriptor)
        digest = hashlib.sha256(body).hexdigest()
        assert originals[digest] == body
        assert record["member"] == f"{record['split']}/{digest}.jpg"


def test_the_shards_are_plain_tar_files(importing: Any, tmp_path: Path) -> None:
    done = importing(build.coco().write(tmp_path / "source"))

    with tarfile.open(done.directory / "images-00000.tar") as shard:
        found = {member.name: (member.offset_data, member.size) for member in shard}

    assert found == {record["member"]: (record["offset"], record["size"]) for record in done.records}


def test_a_record_says_everything_training_needs(importing: Any, tmp_path: Path) -> None:
    done = importing(build.coco(train=1, val=1).write(tmp_path / "source"))

    (record,) = done.of_split("train")

    assert record["boxes"] == [list(build.BOX)]
    assert (record["labels"], record["iscrowd"], record["area"]) == ([2], [0], [20.0 * 32.0])
    assert (record["width"], record["height"]) == build.SIZE
    assert done.header == {
        "format_version": 1,
        "family": "detection",
        "classes": ["cat", "dog"],
        "splits": {"train": {"images": 1, "boxes": 1}, "val": {"images": 1, "boxes": 1}},
        "source_format": "coco",
    }


def test_the_same_dataset_gives_the_same_bytes_whatever_its_files_are_called(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=6)
    first = importing(folder.write(tmp_path / "first"))
    document = folder.splits["train"]
    for image in document["images"]:
        body = folder.files.pop(f"images/train/{image['file_name']}")
        image["file_name"] = f"renamed-{10 - image['id']}.jpg"
        folder.files[f"images/train/{image['file_name']}"] = body
    document["images"].reverse()

    second = importing(folder.write(tmp_path / "second"))

    for name in ("dataset.json", "annotations.jsonl", "images-00000.tar"):
        assert (first.directory / name).read_bytes() == (second.directory / name).read_bytes(), name


def test_large_datasets_are_cut_into_shards_that_together_hold_every_image(importing: Any, tmp_path: Path) -> None:
    done = importing(build.coco(train=9).write(tmp_path / "source"), limits=ImportLimits(shard_bytes=12_000))

    shards = sorted(path.name for path in done.directory.glob("images-*.tar"))

    assert len(shards) > 1
    assert {record["shard"] for record in done.records} == set(shards)


def test_an_image_that_occurs_twice_is_stored_once(importing: Any, tmp_path: Path) -> None:
    folder = build.coco(train=2)
    folder.files["images/train/2.jpg"] = folder.files["images/train/1.jpg"]

    done = importing(folder.write(tmp_path / "source"))

    first, second = done.of_split("train")
    assert (first["shard"], first["offset"]) == (second["shard"], second["offset"])
    assert done.report.duplicate_images.count == 1
    assert "images/train/1.jpg" in done.report.duplicate_images.examples[0]


def test_annotations_are_one_json_object_a_line(importing: Any, tmp_path: Path) -> None:
    done = importing(build.coco().write(tmp_path / "source"))

    lines = (done.directory / "annotations.jsonl").read_text().splitlines()

    assert len(lines) == 5
    assert all(isinstance(json.loads(line), dict) for line in lines)
