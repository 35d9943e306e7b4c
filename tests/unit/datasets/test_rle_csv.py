"""Tables of run lengths: the same pixels back, images without a row, both editions, and every fault at once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from services.core.errors import DatasetInvalid
from tests.builders import datasets as build
from tests.builders import family_datasets as family


def masks_of(done: Any, split: str) -> list[npt.NDArray[np.uint8]]:
    found = []
    for record in done.of_split(split):
        place = record["mask"]
        with (done.directory / place["shard"]).open("rb") as shard:
            shard.seek(place["offset"])
            found.append(np.array(Image.open(io.BytesIO(shard.read(place["size"])))))
    return found


def expected(number: int) -> npt.NDArray[np.uint8]:
    pixels = family.mask(number)
    return np.where(pixels == 255, 0, pixels) if number else pixels * 0


def joined(table: bytes) -> bytes:
    """Return a table in the form of the first edition: a row for every class, most of them empty."""
    rows = [line.split(",") for line in table.decode().splitlines()[1:]]
    known = {(image, label): runs for image, label, runs in rows}
    images = {image for image, _ in known}
    lines = [f"{image}_{label},{known.get((image, str(label)), '')}" for image in sorted(images) for label in (1, 2, 3)]
    return "\r\n".join(["ImageId_ClassId,EncodedPixels", *lines, ""]).encode()


def same(found: list[npt.NDArray[np.uint8]], numbers: range) -> bool:
    return sorted(one.tobytes() for one in found) == sorted(expected(n).tobytes() for n in numbers)


def test_regions_come_through_unchanged_and_images_without_a_row_show_none(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.rle_csv()))

    assert (done.report.format, done.report.family) == ("rle_csv", "segmentation")
    assert done.header["classes"] == ["background", "1", "2"]
    assert same(masks_of(done, "train"), range(3))
    assert same(masks_of(done, "val"), range(2))


def test_the_first_edition_has_image_and_class_in_one_column(importing: Any, tmp_path: Path) -> None:
    files = {name: joined(body) if name.endswith(".csv") else body for name, body in family.rle_csv().items()}

    done = importing(build.write_files(tmp_path / "in", files))

    assert done.header["classes"] == ["background", "1", "2", "3"]
    assert same(masks_of(done, "train"), range(3))
    assert done.report.empty_classes == ["3"]


def test_columns_stand_in_any_order_and_runs_too(importing: Any, tmp_path: Path) -> None:
    files = family.rle_csv()
    rows = [line.split(",") for line in files["train.csv"].decode().splitlines()[1:]]
    turned = ["EncodedPixels,ImageId,ClassId"]
    for image, label, runs in rows:
        words = runs.split()
        pairs = [f"{start} {length}" for start, length in zip(words[::2], words[1::2], strict=True)]
        turned.append(f'"{" ".join(reversed(pairs))}",{image},{label}')
    files["train.csv"] = "\n".join(turned).encode()

    assert same(masks_of(importing(build.write_files(tmp_path / "in", files)), "train"), range(3))


def test_a_list_of_classes_names_them(importing: Any, tmp_path: Path) -> None:
    files = {**family.rle_csv(), "classes.txt": b"sound\npitted\nscratched\n"}

    done = importing(build.write_files(tmp_path / "in", files))

    assert done.header["classes"] == ["sound", "pitted", "scratched"]
    assert same(masks_of(done, "train"), range(3))
    files["classes.txt"] = b"sound\npitted\n"
    with pytest.raises(DatasetInvalid, match="class '2' is none of 1 to 1"):
        importing(build.write_files(tmp_path / "less", files))


def test_images_of_no_table_and_the_sample_of_a_submission_are_left_aside(importing: Any, tmp_path: Path) -> None:
    files = {name: body for name, body in family.rle_csv(train=8).items() if name != "val.csv"}
    files["sample_submission.csv"] = b"ImageId,EncodedPixels,ClassId\n10.jpg,1 3072,1\n"

    done = importing(build.write_files(tmp_path / "in", files))

    assert done.report.ignored == {"images of no table's split": 2}
    assert sum(counts["images"] for counts in done.header["splits"].values()) == 8


def test_images_in_one_folder_are_of_the_only_table_s_split(importing: Any, tmp_path: Path) -> None:
    files = {
        name.replace("train_images", "images"): body
        for name, body in family.rle_csv(train=8, val=0).items()
        if name != "val.csv"
    }

    done = importing(build.write_files(tmp_path / "in", files))

    assert same([*masks_of(done, "train"), *masks_of(done, "val")], range(8))


def test_every_fault_of_a_table_is_reported_at_once(importing: Any, tmp_path: Path) -> None:
    files = family.rle_csv()
    files["val.csv"] = b"\n".join(
        [
            b"ImageId,ClassId,EncodedPixels",
            b"10.jpg,1,1 4 3 4",
            b"10.jpg,x,1 4 3",
            b"11.jpg,1,3072 2",
            b"11.jpg,2,9",
            b"gone.jpg,1,1 1",
            b"11.jpg,1,1 1",
            b"",
            b"11.jpg,1",
        ]
    )

    with pytest.raises(DatasetInvalid) as caught:
        importing(build.write_files(tmp_path / "in", files))

    found = {
        (one.field.removeprefix("val.csv: "), one.description.partition(";")[0]) for one in caught.value.violations
    }
    assert found == {
        ("line 2", "two of its runs overlap at pixel 3"),
        ("line 3", "class 'x' is none of 1 to 254"),
        ("line 3", "has 3 numbers, which are no pairs"),
        ("line 4", "val.csv: line 4: its runs end at pixel 3073, the image has 64x48 = 3072"),
        ("line 5", "has 1 numbers, which are no pairs"),
        ("line 6", "no image 'gone.jpg' of split val in the dataset"),
        ("line 7", "repeats image and class of val.csv: line 4"),
        ("line 9", "has 2 values, the first line has 3"),
    }


def test_a_row_of_more_runs_than_any_picture_has_is_refused_before_it_is_cut_up(importing: Any, tmp_path: Path) -> None:
    files = family.rle_csv()
    files["val.csv"] += b"\n10.jpg,1,1" + b" 1" * 2_000_000

    with pytest.raises(DatasetInvalid, match="more than 2000000 numbers"):
        importing(build.write_files(tmp_path / "in", files))


def test_an_image_in_the_tables_of_two_splits_is_refused(importing: Any, tmp_path: Path) -> None:
    files = {
        name.replace("train_images", "images").replace("val_images", "images"): body
        for name, body in family.rle_csv().items()
    }
    files["val.csv"] += b"\n01.jpg,1,1 1"

    with pytest.raises(DatasetInvalid, match=r"01.jpg is in train.csv too"):
        importing(build.write_files(tmp_path / "in", files))


def test_a_name_that_two_folders_have_must_say_which(importing: Any, tmp_path: Path) -> None:
    files = {name: body for name, body in family.rle_csv().items() if not name.endswith(".csv")}
    files["val_images/01.jpg"] = build.picture(77)
    files["labels.csv"] = b"ImageId,ClassId,EncodedPixels\n01.jpg,1,1 9\nval_images/01.jpg,1,1 9\n"

    with pytest.raises(DatasetInvalid, match="write the folder before the name") as caught:
        importing(build.write_files(tmp_path / "in", files))

    assert [one.field for one in caught.value.violations] == ["labels.csv: line 2"]
