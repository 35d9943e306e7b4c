from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.core.errors import DatasetInvalid
from tests.builders import datasets as build
from tests.builders import family_datasets as family


@pytest.mark.parametrize("pattern", ["{split}{domain}", "{split}_{domain}", "{split}-{domain}"])
def test_folders_of_a_split_and_a_domain_are_read_as_cyclegan_publishes_them(
    importing: Any, tmp_path: Path, pattern: str
) -> None:
    files = {}
    for name, body in family.unaligned().items():
        folder, file = name.split("/")
        files[f"{pattern.format(split=folder[:-1], domain=folder[-1])}/{file}"] = body
        files[f"{pattern.format(split='val', domain=folder[-1])}/{folder}{file}"] = build.picture(hash_of(name))

    done = importing(build.write_files(tmp_path / "horse2zebra", files))

    assert (done.report.format, done.report.family) == ("unaligned", "domains")
    assert done.header["classes"] == ["A", "B"]
    assert {split: counts["images"] for split, counts in done.header["splits"].items()} == {
        "train": 6,
        "val": 10,
        "test": 4,
    }
    assert done.report.splits["train"].images_per_class == {"A": 3, "B": 3}
    assert sorted(record["label"] for record in done.of_split("train")) == [0, 0, 0, 1, 1, 1]


def hash_of(name: str) -> int:
    return 50_000 + sum(map(ord, name)) * 31 + len(name)


def test_a_missing_val_split_is_set_aside_from_both_domains_and_test_is_kept(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.unaligned(train=10)))

    assert done.report.splits["val"].images_per_class == {"A": 1, "B": 1}
    assert done.report.splits["test"].images_per_class == {"A": 2, "B": 2}


def test_the_only_picture_of_a_style_stays_in_train_and_the_report_says_so(importing: Any, tmp_path: Path) -> None:
    files = {f"content/{n}.jpg": build.picture(n) for n in range(10)} | {"style/1.jpg": build.picture(99)}

    done = importing(build.write_files(tmp_path / "in", files), family="domains")

    assert done.header["classes"] == ["content", "style"]
    assert done.report.splits["train"].images_per_class == {"content": 9, "style": 1}
    assert done.report.splits["val"].images_per_class == {"content": 1, "style": 0}
    assert "val holds no image of the domain 'style': nothing of it is evaluated." in done.report.notes


@pytest.mark.parametrize("folder", ["", "train/"])
def test_one_picture_of_each_domain_is_trained_on_with_nothing_held_out_and_the_report_says_so(
    importing: Any, tmp_path: Path, folder: str
) -> None:
    files = {f"{folder}{name}/1.jpg": build.picture(n) for n, name in enumerate(("content", "style"))}
    files[f"{folder}style/copy.jpg"] = files[f"{folder}style/1.jpg"]

    done = importing(build.write_files(tmp_path / "in", files), family="domains")

    assert {split: counts.images_per_class for split, counts in done.report.splits.items()} == {
        "train": {"content": 1, "style": 2}
    }
    (note,) = done.report.notes
    assert "no domain has two different images of which one could be set aside" in note
    assert "style/gatys" in note


def test_a_domain_without_a_picture_is_refused_though_nothing_can_be_held_out(importing: Any, tmp_path: Path) -> None:
    files = {"trainA/1.jpg": build.picture(1), "testB/1.jpg": build.picture(2)}

    with pytest.raises(DatasetInvalid, match=r"domain 'B'.*has no image in train"):
        importing(build.write_files(tmp_path / "in", files))


def test_an_image_of_both_domains_is_told(importing: Any, tmp_path: Path) -> None:
    files = family.unaligned()
    files["trainB/0.jpg"] = files["trainA/0.jpg"]

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.conflicting_labels.examples == ["trainA/0.jpg, trainB/0.jpg"]
    assert any("1 images lie in both domains" in note for note in report.notes)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param(("cat",), r"has 1 domains \('cat'\); give it two folders", id="one"),
        pytest.param(("cat", "dog", "owl"), r"has 3 domains \('cat', 'dog', 'owl'\); give it two", id="three"),
    ],
)
def test_domains_are_two(importing: Any, tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    files = family.image_folder(classes=names)

    with pytest.raises(DatasetInvalid, match=reason):
        importing(build.write_files(tmp_path / "in", files), family="domains")


def test_a_word_that_ends_in_a_is_no_domain(importing: Any, tmp_path: Path) -> None:
    files = {f"{name}/{n}.jpg": build.picture(10 * len(name) + n) for name in ("testa", "valb") for n in range(3)}

    assert importing(build.write_files(tmp_path / "in", files)).header["classes"] == ["testa", "valb"]


@pytest.mark.parametrize("layout", ["{domain}/{n}.jpg", "train/{domain}/{n}.jpg"])
def test_content_and_style_are_domains_by_their_names(importing: Any, tmp_path: Path, layout: str) -> None:
    numbers = {"content": range(20), "style": range(20, 40)}
    files = {layout.format(domain=name, n=n): build.picture(n) for name, each in numbers.items() for n in each}

    done = importing(build.write_files(tmp_path / "in", files))

    assert (done.report.format, done.report.family) == ("image_folder", "domains")
    assert done.header["classes"] == ["content", "style"]


def test_a_third_folder_beside_content_and_style_makes_classes_of_them(importing: Any, tmp_path: Path) -> None:
    names = ("content", "style", "other")
    files = {f"{name}/{n}.jpg": build.picture(10 * number + n) for number, name in enumerate(names) for n in range(4)}

    assert importing(build.write_files(tmp_path / "in", files)).report.family == "classification"
