from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.datasets.split_rule import SplitRule
from tests.builders import datasets as build
from tests.builders import family_datasets as family


def images_of(done: Any, split: str) -> list[tuple[int, bytes]]:
    found = []
    for record in done.of_split(split):
        with (done.directory / record["shard"]).open("rb") as shard:
            shard.seek(record["offset"])
            found.append((record["label"], np.array(Image.open(io.BytesIO(shard.read(record["size"])))).tobytes()))
    return sorted(found)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files_become_grey_images_with_their_labels(importing: Any, tmp_path: Path, packed: bool) -> None:
    done = importing(build.write_files(tmp_path / "in", family.mnist(packed=packed)))

    assert (done.report.format, done.report.family) == ("mnist", "classification")
    assert done.header["classes"] == ["0", "1", "2"]
    assert done.header["splits"] == {"train": {"images": 6}, "val": {"images": 4}}
    originals = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    assert images_of(done, "train") == sorted((n % 3, image.tobytes()) for n, image in enumerate(originals))
    assert {(record["width"], record["height"]) for record in done.records} == {(4, 5)}


def test_mnist_leaves_nothing_beside_the_canonical_form(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.mnist()))

    assert {path.name for path in done.directory.parent.iterdir()} == {"in", done.directory.name}
    assert {path.name for path in done.directory.iterdir()} == {"dataset.json", "annotations.jsonl", "images-00000.tar"}


def test_two_files_of_one_split_are_refused(importing: Any, tmp_path: Path) -> None:
    files = family.mnist()
    files |= {name.replace("t10k", "val"): body for name, body in files.items() if name.startswith("t10k")}

    with pytest.raises(Exception, match="second val split"):
        importing(build.write_files(tmp_path / "in", files))


def points_of(done: Any, split: str) -> list[list[float]]:
    table = np.load(done.directory / f"points-{split}.npy", allow_pickle=False)
    assert table.dtype == np.float32
    rows: list[list[float]] = table.tolist()
    return rows


def test_points_of_csv_keep_their_columns_and_order(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.points()))

    assert done.header == {
        "format_version": 1,
        "family": "points",
        "classes": [],
        "columns": ["x", "y"],
        "splits": {"train": {"points": 3}, "val": {"points": 1}},
        "source_format": "points",
    }
    assert points_of(done, "train") == [[1.0, 2.0], [3.5, -4.0], [5.0, pytest.approx(0.6)]]
    assert done.report.splits["train"].units() == {"points": 3}


def test_a_csv_without_names_loses_no_row(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", {"train.csv": b"1,2\n3,4\n", "val.csv": b"5,6\n"}))

    assert points_of(done, "train") == [[1, 2], [3, 4]]
    assert done.header["columns"] == ["x0", "x1"]


def test_points_without_a_val_split_are_divided_by_the_seed(importing: Any, tmp_path: Path) -> None:
    table = np.arange(40, dtype=np.int16).reshape(20, 2)
    folder = build.write_files(tmp_path / "in", {"cloud.npy": family.npy(table)})

    first, again, other = (importing(folder, rule=SplitRule(val_fraction=0.25, seed=seed)) for seed in (3, 3, 4))

    assert points_of(first, "val") == points_of(again, "val") != points_of(other, "val")
    assert sorted(points_of(first, "train") + points_of(first, "val")) == table.tolist()
    assert len(points_of(first, "val")) == 5


def test_two_dimensional_tables_of_one_split_are_joined(importing: Any, tmp_path: Path) -> None:
    files = {"train-1.csv": b"1,2\n", "train-2.csv": b"3,4\n", "val.csv": b"5,6\n"}

    done = importing(build.write_files(tmp_path / "in", files))

    assert points_of(done, "train") == [[1, 2], [3, 4]]
