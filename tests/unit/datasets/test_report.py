from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from services.core.errors import DatasetInvalid
from services.datasets.image import LOOK_SIZE
from services.datasets.near import look_alikes
from tests.builders import datasets as build
from tests.builders import family_datasets as family


def scene(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (96, 80), tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, width, height = (int(v) for v in rng.integers(0, 60, 4))
        draw.rectangle((x, y, x + width, y + height), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def folder_of(seeds: int) -> dict[str, bytes]:
    return {
        f"{split}/{name}/{n}.png": encoded(scene(1000 * a + 100 * b + n), "PNG")
        for a, split in enumerate(("train", "val"))
        for b, name in enumerate(("cat", "dog"))
        for n in range(seeds)
    }


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda image: encoded(image, "JPEG", quality=70), id="stored with loss"),
        pytest.param(lambda image: encoded(image.resize((60, 50)), "PNG"), id="made smaller"),
        pytest.param(lambda image: encoded(image, "PNG", compress_level=1), id="packed otherwise"),
    ],
)
def test_an_image_stored_anew_in_another_split_is_reported(importing: Any, tmp_path: Path, again: Any) -> None:
    files = folder_of(15)
    files["val/dog/copy.png"] = again(scene(3))

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.near_duplicates.examples == ["val/dog/copy.png looks like train/cat/3.png"]
    assert report.split_leakage.count == 0
    assert report.notes == ["1 held-out images look like images of train: evaluation may look better than it is."]


def test_the_same_bytes_in_two_splits_are_leakage_and_not_counted_twice(importing: Any, tmp_path: Path) -> None:
    files = folder_of(15)
    files["val/dog/copy.png"] = files["train/dog/2.png"]

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.split_leakage.examples == ["train/dog/2.png, val/dog/copy.png"]
    assert report.near_duplicates.count == 0


def test_flat_images_are_not_alike_for_having_nothing_on_them() -> None:
    flat = [bytes([grey]) * (LOOK_SIZE[0] * LOOK_SIZE[1]) for grey in (10, 11)]

    assert look_alikes(flat, flat) == []


def test_alike_images_are_found_among_many() -> None:
    rng = np.random.default_rng(0)
    shape = LOOK_SIZE[::-1]
    train = [rng.integers(0, 250, shape, dtype=np.uint8) for _ in range(3000)]
    noisy = [(train[n] + rng.integers(0, 3, shape, dtype=np.uint8)).tobytes() for n in (5, 1234)]
    others = [rng.integers(0, 256, shape, dtype=np.uint8).tobytes() for _ in range(200)]

    found = look_alikes([look.tobytes() for look in train], [*others, *noisy])

    assert set(found) <= {(200, 5), (201, 1234)}
    assert found


def test_every_unreadable_image_is_named_at_once(importing: Any, tmp_path: Path) -> None:
    files = family.image_folder()
    files |= {"train/cat/1.png": b"", "val/dog/0.png": b"text"}

    with pytest.raises(DatasetInvalid) as caught:
        importing(build.write_files(tmp_path / "in", files))

    assert [violation.field for violation in caught.value.violations] == ["train/cat/1.png", "val/dog/0.png"]


def test_unbalanced_classes_are_pointed_out(importing: Any, tmp_path: Path) -> None:
    files = family.image_folder(train=2)
    files |= {f"train/dog/more-{n}.png": build.picture(5000 + n, form="PNG") for n in range(20)}

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert any("22 images of 'dog' but 2 of 'cat'" in note for note in report.notes)


def test_the_report_tells_the_range_of_sizes(importing: Any, tmp_path: Path) -> None:
    files = family.image_folder()
    files["train/cat/wide.png"] = build.picture(900, (200, 20), form="PNG")

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.image_sizes is not None
    assert (report.image_sizes.width, report.image_sizes.height) == ((64, 200), (20, 48))
