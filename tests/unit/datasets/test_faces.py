from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import DatasetInvalid
from services.datasets.split_rule import SplitRule
from tests.builders import datasets as build
from tests.builders import family_datasets as family


def test_people_of_train_are_counted_first(importing: Any, tmp_path: Path) -> None:
    files = {
        name.replace("train/ann", "train/zoe").replace("train/bob", "train/yan"): body
        for name, body in family.people().items()
    }

    done = importing(build.write_files(tmp_path / "in", files), family="face")

    assert done.header["identities"] == ["yan", "zoe", "cy", "dan"]
    assert done.header["classes"] == []
    assert done.header["splits"]["val"] == {"images": 4, "identities": 2}
    for record in done.records:
        assert done.header["identities"][record["label"]] == record["identity"]
    assert {record["label"] for record in done.of_split("train")} == {0, 1}


def test_without_splits_whole_people_are_set_aside(importing: Any, tmp_path: Path) -> None:
    files = {f"p{person}/{n}.jpg": build.picture(10 * person + n) for person in range(12) for n in range(3)}

    done = importing(build.write_files(tmp_path / "in", files), family="face", rule=SplitRule(val_fraction=0.25))

    people = {split: {record["identity"] for record in done.of_split(split)} for split in ("train", "val")}
    assert (len(people["train"]), len(people["val"])) == (9, 3)
    assert not people["train"] & people["val"]
    assert done.report.notes == ["The dataset has no val split: 3 people with 9 of 36 images were set aside by name."]
    assert done.report.splits["val"].images_per_identity == (3, 3)


@pytest.mark.parametrize("people", [4, 9, 14])
def test_of_a_few_people_two_are_set_aside(importing: Any, tmp_path: Path, people: int) -> None:
    files = {f"p{person}/{n}.jpg": build.picture(10 * person + n) for person in range(people) for n in range(3)}

    done = importing(build.write_files(tmp_path / "in", files), family="face")

    assert done.header["splits"]["val"]["identities"] == 2


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("count", range(6))
def test_a_split_never_takes_all_and_nothing_of_one(least: int, count: int) -> None:
    keys = {str(number) for number in range(count)}

    for fraction in (0.01, 0.5, 0.99):
        chosen = SplitRule(val_fraction=fraction).draw(keys, least=least)
        enough = min(least, count // 2)
        assert chosen <= keys
        assert enough <= len(chosen) <= count - enough
        assert chosen or count < 2
        assert count != 1 or not chosen


def test_a_person_in_two_splits_is_refused(importing: Any, tmp_path: Path) -> None:
    files = {**family.people(), "val/ann/9.jpg": build.picture(999)}

    with pytest.raises(DatasetInvalid, match="shares 1 people with train: 'ann'; keep every person in one split"):
        importing(build.write_files(tmp_path / "in", files), family="face")


def test_one_picture_of_everybody_is_too_little(importing: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="two images or more of one of them"):
        importing(build.write_files(tmp_path / "in", family.people(val=1)), family="face")


# --- LFW


def test_lfw_pairs_name_stored_images_and_their_people_are_held_out(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.lfw()))

    assert (done.report.format, done.report.family, done.report.verification_pairs) == ("lfw", "face", 4)
    assert {record["identity"] for record in done.of_split("val")} == {"cy", "dan"}
    assert {record["identity"] for record in done.of_split("train")} == {"ann", "bob"}
    people = {record["member"]: record["identity"] for record in done.of_split("val")}
    folds = json.loads((done.directory / "pairs.json").read_text())["folds"]
    assert [[(people[a], people[b], same) for a, b, same in fold] for fold in folds] == [
        [("cy", "cy", 1), ("cy", "dan", 0)],
        [("dan", "dan", 1), ("dan", "cy", 0)],
    ]


def test_lfws_development_list_is_dealt_into_ten_folds(importing: Any, tmp_path: Path) -> None:
    files = family.lfw()
    del files["pairs.txt"]
    lines = ["cy\t1\t2"] * 12 + ["cy\t1\tdan\t2"] * 12
    files["pairsDevTest.txt"] = "\n".join(["12", *lines]).encode()

    done = importing(build.write_files(tmp_path / "in", files))

    folds = json.loads((done.directory / "pairs.json").read_text())["folds"]
    assert [len(fold) for fold in folds] == [3] * 4 + [2] * 6


def test_faces_not_named_the_way_of_lfw_are_counted(importing: Any, tmp_path: Path) -> None:
    files = {**family.lfw(), "lfw/ann/portrait.jpg": build.picture(50)}

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.ignored == {"images not named PERSON/PERSON_0001": 1}


# --- CelebA


def test_celebas_attributes_are_kept_with_the_official_split(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.celeba()))

    assert (done.header["family"], done.header["attributes"]) == ("images", ["Eyeglasses", "Smiling"])
    assert sorted(record["attributes"] for record in done.records) == [[0, 0]] * 3 + [[1, 0]] * 3
    assert done.header["splits"] == {"train": {"images": 4}, "val": {"images": 2}}
    assert done.report.splits["train"].images_per_attribute == {"Eyeglasses": 2, "Smiling": 0}


def test_celebas_people_make_faces(importing: Any, tmp_path: Path) -> None:
    files = family.celeba(count=8)

    done = importing(build.write_files(tmp_path / "in", files), family="face")

    assert done.header["identities"] == ["0", "1", "2", "3"]
    assert {record["identity"] for record in done.of_split("val")} == {"2", "3"}
    assert all(len(record["attributes"]) == 2 for record in done.records)


def test_celebas_landmarks_are_kept_with_faces_only(importing: Any, tmp_path: Path) -> None:
    files = {**family.celeba(count=8), **family.celeba_landmarks(count=8)}
    folder = build.write_files(tmp_path / "in", files)

    faces, images = importing(folder, family="face"), importing(folder, family="images")

    corners = [[10, 10], [30, 10], [20, 20], [10, 30]]
    assert all(record["landmarks"][:4] == corners for record in faces.records)
    assert sorted(record["landmarks"][4][0] for record in faces.records) == list(range(31, 39))
    assert not any("landmarks" in record for record in images.records)


def test_landmarks_that_are_no_numbers_are_named(importing: Any, tmp_path: Path) -> None:
    files = {**family.celeba(count=8), **family.celeba_landmarks(count=8)}
    name = "list_landmarks_align_celeba.txt"
    files[name] = files[name].replace(b"000003.jpg 10 10", b"000003.jpg 10 ten")

    with pytest.raises(DatasetInvalid, match=r"list_landmarks_align_celeba\.txt: line 5: needs ten whole numbers"):
        importing(build.write_files(tmp_path / "in", files), family="face")


def test_celeba_without_people_cannot_be_faces(importing: Any, tmp_path: Path) -> None:
    files = {name: body for name, body in family.celeba().items() if name != "identity_CelebA.txt"}

    with pytest.raises(DatasetInvalid, match=r"identity_CelebA\.txt: not found"):
        importing(build.write_files(tmp_path / "in", files), family="face")


def test_celeba_without_a_partition_is_divided(importing: Any, tmp_path: Path) -> None:
    files = {name: body for name, body in family.celeba().items() if name != "list_eval_partition.txt"}

    done = importing(build.write_files(tmp_path / "in", files))

    assert done.header["splits"] == {"train": {"images": 5}, "val": {"images": 1}}
