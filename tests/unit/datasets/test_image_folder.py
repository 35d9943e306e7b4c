from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import DatasetInvalid
from services.datasets.split_rule import SplitRule
from tests.builders import datasets as build
from tests.builders import family_datasets as family


def test_folders_become_classes_in_order_of_name(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.image_folder(classes=("dog", "Ape", "cat"))))

    assert done.header == {
        "format_version": 1,
        "family": "classification",
        "classes": ["Ape", "cat", "dog"],
        "splits": {"train": {"images": 9}, "val": {"images": 6}},
        "source_format": "image_folder",
    }
    assert sorted(record["label"] for record in done.of_split("val")) == [0, 0, 1, 1, 2, 2]
    assert done.report.splits["train"].images_per_class == {"Ape": 3, "cat": 3, "dog": 3}


def test_each_image_keeps_the_label_of_its_own_folder(importing: Any, tmp_path: Path) -> None:
    files = family.image_folder()
    done = importing(build.write_files(tmp_path / "in", files))

    for record in done.records:
        body = read(done.directory, record)
        (name,) = [name for name, original in files.items() if original == body]
        assert done.header["classes"][record["label"]] == name.split("/")[1]


def read(directory: Path, place: dict[str, Any]) -> bytes:
    with (directory / place["shard"]).open("rb") as shard:
        shard.seek(place["offset"])
        return shard.read(place["size"])


@pytest.mark.parametrize("top", ["", "photos/", "images/"])
@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Training", "validation"), ("train2017", "val2017")])
def test_splits_are_found_by_their_usual_names(importing: Any, tmp_path: Path, top: str, train: str, val: str) -> None:
    words = {"train": train, "val": val}
    files = {
        f"{top}{words[split]}/{rest}": body
        for name, body in family.image_folder().items()
        for split, _, rest in [name.partition("/")]
    }

    done = importing(build.write_files(tmp_path / "in", files))

    assert done.header["splits"] == {"train": {"images": 6}, "val": {"images": 4}}
    assert done.header["classes"] == ["cat", "dog"]


def test_without_splits_every_class_gives_its_share(importing: Any, tmp_path: Path) -> None:
    files = {name.removeprefix("train/"): body for name, body in family.image_folder(train=20, val=0).items()}

    done = importing(build.write_files(tmp_path / "in", files), rule=SplitRule(val_fraction=0.25))

    assert done.report.splits["val"].images_per_class == {"cat": 5, "dog": 5}
    assert done.report.notes == ["The dataset has no val split: 10 of 40 images were set aside by content hash."]


def test_another_seed_sets_other_images_aside_and_the_same_seed_the_same(importing: Any, tmp_path: Path) -> None:
    files = {name.removeprefix("train/"): body for name, body in family.image_folder(train=20, val=0).items()}
    folder = build.write_files(tmp_path / "in", files)

    first, again, other = (
        {record["member"] for record in importing(folder, rule=SplitRule(seed=seed)).of_split("val")}
        for seed in (1, 1, 2)
    )

    assert first == again != other


def test_copies_of_an_image_never_end_in_both_splits(importing: Any, tmp_path: Path) -> None:
    files = {
        f"{name}/{n}.png": build.picture(first + n % 4, form="PNG")
        for first, name in ((0, "cat"), (2, "dog"))
        for n in range(12)
    }

    done = importing(build.write_files(tmp_path / "in", files), rule=SplitRule(val_fraction=0.5))

    digests = {split: {record["member"].split("/")[1] for record in done.of_split(split)} for split in ("train", "val")}
    assert digests["train"]
    assert digests["val"]
    assert not digests["train"] & digests["val"]


def test_a_class_of_one_image_stays_in_train_when_we_choose_the_split(importing: Any, tmp_path: Path) -> None:
    files = {name.removeprefix("train/"): body for name, body in family.image_folder(train=20, val=0).items()}
    files["owl/1.png"] = build.picture(777, form="PNG")

    done = importing(build.write_files(tmp_path / "in", files))

    assert done.report.splits["train"].images_per_class["owl"] == 1
    assert done.report.splits["val"].images_per_class["owl"] == 0
    assert "20 images" not in done.report.notes[0]
    assert any("unbalanced" in note and "'owl'" in note for note in done.report.notes)


def test_the_same_folders_may_be_images_to_generate_from(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.image_folder()), family="images")

    assert done.header["family"] == "images"
    assert done.header["classes"] == ["cat", "dog"]
    assert {record["label"] for record in done.records} == {0, 1}


def test_images_without_any_folder_have_no_label(importing: Any, tmp_path: Path) -> None:
    files = {f"{n}.png": build.picture(n, form="PNG") for n in range(10)}

    done = importing(build.write_files(tmp_path / "in", files), family="images")

    assert done.header["classes"] == []
    assert not any("label" in record for record in done.records)
    assert done.header["splits"] == {"train": {"images": 9}, "val": {"images": 1}}


def test_images_half_in_folders_are_refused(importing: Any, tmp_path: Path) -> None:
    files = {"1.png": build.picture(1), "2.png": build.picture(2), "deep/3.png": build.picture(3)}

    with pytest.raises(DatasetInvalid, match="give all images a folder or none"):
        importing(build.write_files(tmp_path / "in", files), family="images")


def test_an_image_outside_every_class_is_named(importing: Any, tmp_path: Path) -> None:
    files = {**family.image_folder(), "train/stray.png": build.picture(500, form="PNG")}

    with pytest.raises(DatasetInvalid, match="stray"):
        importing(build.write_files(tmp_path / "in", files), family="classification")


def test_images_of_other_formats_are_left_aside_and_counted(importing: Any, tmp_path: Path) -> None:
    files = {**family.image_folder(), "train/cat/a.gif": b"x", "train/dog/b.GIF": b"x"}

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.ignored == {"images that are no JPEG, PNG or WEBP (.gif)": 2}


@pytest.mark.parametrize(
    ("wanted", "is_told"),
    [
        pytest.param(None, True, id="nothing was asked for"),
        pytest.param("detection", False, id="something else was asked for"),
    ],
)
def test_plain_images_are_told_of_their_family(
    importing: Any, tmp_path: Path, wanted: str | None, is_told: bool
) -> None:
    source = build.write_files(tmp_path / "in", {f"{n}.jpg": build.picture(n) for n in range(3)})

    with pytest.raises(DatasetInvalid, match="no annotations found") as caught:
        importing(source, family=wanted)

    assert ("(`--family images`)" in str(caught.value)) is is_told


def test_splits_without_annotations_are_not_taken_for_classes(importing: Any, tmp_path: Path) -> None:
    files = {f"{split}2017/{n}.jpg": build.picture(n) for n, split in enumerate(("train", "val"))}

    with pytest.raises(DatasetInvalid, match="no annotations found"):
        importing(build.write_files(tmp_path / "in", files))


def test_the_same_folders_give_the_same_bytes_whatever_the_files_are_called(importing: Any, tmp_path: Path) -> None:
    files = family.image_folder()
    renamed = {f"{name[:-4]}-again.png": body for name, body in reversed(files.items())}

    one, other = (importing(build.write_files(tmp_path / str(n), each)) for n, each in enumerate((files, renamed)))

    for name in ("dataset.json", "annotations.jsonl", "images-00000.tar"):
        assert (one.directory / name).read_bytes() == (other.directory / name).read_bytes(), name


def test_an_image_under_two_labels_is_reported(importing: Any, tmp_path: Path) -> None:
    files = family.image_folder()
    files["train/dog/copy.png"] = files["train/cat/0.png"]

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.conflicting_labels.examples == ["train/cat/0.png, train/dog/copy.png"]
    assert json.loads(report.model_dump_json())["conflicting_labels"]["count"] == 1
