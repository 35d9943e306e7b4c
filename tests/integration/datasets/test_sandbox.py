"""The import process: whatever a dataset does to it, the caller gets a report or a refusal."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

import psutil
import pytest
from PIL import Image

from services.core.errors import DatasetInvalid
from services.datasets.limits import MIB, ImportLimits
from services.datasets.sandbox import run_import
from tests.builders import datasets as build


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def large_images(count: int) -> dict[str, bytes]:
    """A COCO dataset of pictures that are small to store and slow to decode."""
    folder = build.coco(train=count, val=1)
    target = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(target, "PNG", compress_level=1)
    for n in range(1, count + 1):
        folder.files[f"images/train/{n}.jpg"] = target.getvalue()
    for image_entry in folder.splits["train"]["images"]:
        image_entry.update(width=7000, height=7000)
    return folder.content()


def test_a_report_comes_back_and_the_canonical_form_lies_in_the_work_folder(tmp_path: Path, work: Path) -> None:
    archive = build.zipped(tmp_path / "a.zip", build.coco().content())

    report = run_import(archive, work, source_format=None, limits=ImportLimits())

    assert report.splits["train"].boxes == 3
    assert json.loads((work / "canonical" / "dataset.json").read_text())["classes"] == ["cat", "dog"]


def test_violations_cross_the_process_boundary_whole(tmp_path: Path, work: Path) -> None:
    folder = build.coco()
    del folder.files["images/train/1.jpg"]
    archive = build.zipped(tmp_path / "a.zip", folder.content())

    with pytest.raises(DatasetInvalid, match="1 missing images") as caught:
        run_import(archive, work, source_format=None, limits=ImportLimits())

    (violation,) = caught.value.violations
    assert violation.field == "annotations/instances_train.json: images[0]: 1.jpg"


def test_the_child_sees_no_credentials(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_S3_SECRET_KEY", "hunter2")
    pipe = tmp_path / "archive.zip"
    os.mkfifo(pipe)
    seen: list[str] = []

    def look() -> None:
        # Opening for writing returns when the child opens the archive, which it does before anything else.
        with pipe.open("wb"):
            (child,) = [p for p in psutil.Process().children() if "services.datasets.child" in p.cmdline()]
            seen.extend(child.environ())

    watcher = threading.Thread(target=look)
    watcher.start()
    with pytest.raises(DatasetInvalid):
        run_import(pipe, work, source_format=None, limits=ImportLimits())
    watcher.join()

    assert "PATH" in seen
    assert not [name for name in seen if "TRAINYARD" in name or "SECRET" in name]


def test_a_child_that_hangs_is_ended_when_its_time_is_up(tmp_path: Path, work: Path) -> None:
    pipe = tmp_path / "archive.zip"
    os.mkfifo(pipe)

    with pytest.raises(DatasetInvalid, match="more than 2 seconds"):
        run_import(pipe, work, source_format=None, limits=ImportLimits(cpu_seconds=1, wall_slack_seconds=0))

    assert not [p for p in psutil.Process().children() if "services.datasets.child" in p.cmdline()]


def test_a_dataset_that_burns_processor_time_is_stopped_at_the_image_it_burns_it_on(tmp_path: Path, work: Path) -> None:
    archive = build.zipped(tmp_path / "a.zip", large_images(20))

    with pytest.raises(DatasetInvalid, match=r"processor time \(at images/train/\d+\.jpg\)"):
        run_import(archive, work, source_format=None, limits=ImportLimits(cpu_seconds=2, max_ratio=10**6))


def test_a_dataset_that_needs_too_much_memory_is_refused(tmp_path: Path, work: Path) -> None:
    files = build.coco().content()
    files["annotations/instances_train.json"] = b'{"images": [' + b"[],[]," * 2_000_000 + b"[]]}"
    archive = build.zipped(tmp_path / "a.zip", files)
    limits = ImportLimits(memory_bytes=256 * MIB, max_ratio=10**6)

    with pytest.raises(DatasetInvalid, match="GiB of memory"):
        run_import(archive, work, source_format=None, limits=limits)
