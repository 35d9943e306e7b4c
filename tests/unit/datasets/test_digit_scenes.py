from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.datasets import digit_scenes
from services.datasets.digit_scenes import PHOTOS, write_digit_scenes, write_digit_scenes_zip


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digit_scenes(tmp_path_factory.mktemp("scenes"), seed=3, train_images=60, val_images=20)


def document(scenes: Path, split: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((scenes / "annotations" / f"instances_{split}.json").read_text())
    return parsed


def test_one_seed_gives_one_dataset_and_another_seed_another(scenes: Path, tmp_path: Path) -> None:
    again = write_digit_scenes(tmp_path / "again", seed=3, train_images=60, val_images=20)
    other = write_digit_scenes(tmp_path / "other", seed=4, train_images=2, val_images=2)

    assert digests(again) == digests(scenes)
    assert digests(other)["images/train/000001.jpg"] != digests(scenes)["images/train/000001.jpg"]


def test_a_smaller_dataset_is_the_beginning_of_a_larger_one(scenes: Path, tmp_path: Path) -> None:
    small = write_digit_scenes(tmp_path / "small", seed=3, train_images=5, val_images=2)

    images = {name: digest for name, digest in digests(small).items() if name.startswith("images/")}
    assert images.items() <= digests(scenes).items()


def test_the_importer_takes_it_without_a_remark(scenes: Path, importing: Any) -> None:
    done = importing(scenes)

    assert done.header["classes"] == [str(n) for n in range(10)]
    assert done.header["splits"]["train"]["images"] == 60
    assert done.report.notes == []
    assert done.report.clipped_boxes.count == 0


def test_scenes_hold_one_to_six_digits_of_legible_size_that_hardly_overlap(scenes: Path) -> None:
    for split in ("train", "val"):
        by_image: dict[int, list[list[int]]] = {}
        for annotation in document(scenes, split)["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation["bbox"])

        assert {len(boxes) for boxes in by_image.values()} <= set(range(1, 7))
        assert len(by_image) == len(document(scenes, split)["images"])
        assert all(18 <= height <= 55 for boxes in by_image.values() for _, _, _, height in boxes)


def test_boxes_are_tight_around_the_ink() -> None:
    supply = digit_scenes._supplies(0)["train"]
    blank = digit_scenes._Supply(supply.digits, supply.labels, (Image.new("RGB", (256, 256), (0, 0, 0)),))

    for number in range(10):
        scene, marks = digit_scenes._scene(blank, np.random.default_rng(number), 128)
        brightness = np.asarray(scene).max(axis=2)
        for mark in marks:
            inside = brightness[mark.y1 : mark.y2, mark.x1 : mark.x2] > 40
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()


def test_val_shares_neither_photos_nor_digits_with_train() -> None:
    supplies = digit_scenes._supplies(0)
    train, val = ({digit.tobytes() for digit in supplies[split].digits} for split in ("train", "val"))

    assert not set(PHOTOS["train"]) & set(PHOTOS["val"])
    assert not train & val
    assert set(supplies["val"].labels) == set(range(10))


def test_the_archive_holds_the_folder_and_is_the_same_each_time(tmp_path: Path) -> None:
    first = write_digit_scenes_zip(tmp_path / "a.zip", tmp_path / "a", seed=1, train_images=2, val_images=2)
    second = write_digit_scenes_zip(tmp_path / "b.zip", tmp_path / "b", seed=1, train_images=2, val_images=2)

    assert first.read_bytes() == second.read_bytes()


def test_the_control_plane_imports_datasets_without_the_demo_libraries() -> None:
    code = (
        "import sys, services.datasets.manager, services.datasets.digit_scenes\n"
        "sys.exit(' '.join({'sklearn', 'skimage', 'torch'} & set(sys.modules)) or 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])

    assert (done.returncode, done.stderr) == (0, "")
