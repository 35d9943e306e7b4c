"""The synthetic data of the proofs: one seed one dataset, importable without a remark, and nothing shared by splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.builders import digits, faces, points
from tests.builders.segmentation_scenes import write_segmentation_scenes

SMALL_CROWD = {"train": (6, 4), "val": (20, 3), "size": 24}

GENERATORS: dict[str, tuple[Callable[..., Path], str | None]] = {
    "digits": (partial(digits.write_digits, size=8, train=300, val=80), None),
    "source digits": (partial(digits.write_source_digits, size=8), None),
    "blended digits": (partial(digits.write_blended_digits, size=16, shots=3, val=60), None),
    "people": (partial(faces.write_people, **SMALL_CROWD), "face"),
    "lfw": (partial(faces.write_lfw, pairs=3, **SMALL_CROWD), None),
    "celeba": (partial(faces.write_celeba, count=40, size=24, palette="wide", pose=1.0), None),
    "segmentation scenes": (partial(write_segmentation_scenes, train=12, val=6), None),
    "points": (points.write_gaussian, None),
}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", GENERATORS)
def test_generated_data_is_imported_without_a_remark_and_is_the_same_for_the_same_seed(
    importing: Any, tmp_path: Path, name: str
) -> None:
    write, family = GENERATORS[name]

    first, again, other = (write(tmp_path / str(n), seed=seed) for n, seed in enumerate((3, 3, 4)))

    assert digests(first) == digests(again) != digests(other)
    report = importing(first, family=family).report
    assert (report.notes, report.ignored, report.split_leakage.count) == ([], {}, 0)


def test_digits_are_the_scans_split_by_original_sample(tmp_path: Path) -> None:
    folder = digits.write_digits(tmp_path, size=8)

    scans = {split: list((folder / split).rglob("*.png")) for split in ("train", "val")}
    assert {split: len(paths) for split, paths in scans.items()} == {"train": 1437, "val": 360}
    assert not {p.name for p in scans["train"]} & {p.name for p in scans["val"]}
    assert np.asarray(Image.open(scans["val"][0])).shape == (8, 8)


def test_what_is_tuned_on_shares_no_scan_with_the_source(tmp_path: Path) -> None:
    source = digits.write_source_digits(tmp_path / "source", size=8)
    target = digits.write_blended_digits(tmp_path / "target", size=8, shots=4)

    used = {int(path.stem) % 1797 for path in source.rglob("*.png")}
    tuned = [int(path.stem) for path in target.rglob("*.png")]
    assert len(used) == digits.NUM_SOURCE
    assert not used & set(tuned)
    assert len(set(tuned)) == len(tuned) == 40 + 500


def test_people_keep_their_features_while_shots_differ() -> None:
    rng = np.random.default_rng(0)
    one, other = faces.draw_person(rng), faces.draw_person(rng)
    still = faces.Shot(is_smiling=False, has_glasses=False, background=(90, 90, 90))

    drawn = [np.asarray(faces.draw_face(each, still, size=32, rng=rng), dtype=int) for each in (one, one, other)]

    assert (drawn[0] == drawn[1]).all()
    assert np.abs(drawn[0] - drawn[2]).mean() > 5


@pytest.mark.parametrize("change", [{"is_smiling": True}, {"has_glasses": True}])
def test_an_attribute_changes_only_its_part_of_the_face(change: dict[str, bool]) -> None:
    rng = np.random.default_rng(1)
    person = faces.draw_person(rng)
    plain = {"is_smiling": False, "has_glasses": False, "background": (90, 90, 90)}

    before, after = (
        np.asarray(faces.draw_face(person, faces.Shot(**flags), size=64, rng=rng), dtype=int)
        for flags in (plain, plain | change)
    )

    changed = np.argwhere(np.abs(before - after).max(axis=2) > 20)
    assert len(changed) > 10
    is_below = changed[:, 0].mean() > 32
    assert is_below == ("is_smiling" in change)


def test_points_have_the_stated_mean_and_covariance(tmp_path: Path) -> None:
    points.write_gaussian(tmp_path, train=20_000)

    drawn = np.loadtxt(tmp_path / "train.csv", delimiter=",", skiprows=1)

    assert np.abs(drawn.mean(0) - points.MEAN).max() < 0.05
    assert np.abs(np.cov(drawn.T) - points.COVARIANCE).max() < 0.15
