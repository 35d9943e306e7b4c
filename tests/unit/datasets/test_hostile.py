from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.core.errors import DatasetInvalid
from services.datasets.archive import unpack
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from services.datasets.problem import MAX_LISTED
from tests.builders import datasets as build
from tests.builders.hostile import ARCHIVES, CONTENTS, SMALL, Hostile
from tests.builders.hostile_families import FAMILIES


def run(archive: Path, work: Path, limits: ImportLimits = SMALL) -> None:
    unpack(archive, work / "unpacked", limits)
    (work / "out").mkdir()
    import_folder(work / "unpacked", work / "out", source_format=None, limits=limits)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in (ARCHIVES | CONTENTS | FAMILIES).items()]
)
def test_what_is_wrong_is_refused_with_its_place_and_the_remedy(case: Hostile, tmp_path: Path) -> None:
    archive = case.make(tmp_path)
    (tmp_path / "work").mkdir()

    with pytest.raises(DatasetInvalid) as caught:
        run(archive, tmp_path / "work")

    matching = [v for v in caught.value.violations if case.field in v.field and case.description in v.description]
    assert matching, caught.value.violations
    assert "; " in matching[0].description or ", " in matching[0].description
    assert matching[0].field.isprintable()
    assert not (tmp_path / "work" / "out" / "dataset.json").exists()


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in ARCHIVES.items()])
def test_a_refused_archive_leaves_nothing_unpacked(case: Hostile, tmp_path: Path) -> None:
    archive = case.make(tmp_path)
    before = set(tmp_path.rglob("*"))
    (tmp_path / "work").mkdir()

    with pytest.raises(DatasetInvalid):
        run(archive, tmp_path / "work")

    left = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert left == set()


def test_a_whole_archive_of_each_kind_unpacks(tmp_path: Path) -> None:
    files = build.coco().content()
    archives = [
        build.zipped(tmp_path / "a.zip", files),
        build.tarred(tmp_path / "a.tar", files),
        build.tarred(tmp_path / "a.tar.gz", files),
    ]

    for n, archive in enumerate(archives):
        unpack(archive, tmp_path / f"out-{n}", SMALL)

        found = {p.relative_to(tmp_path / f"out-{n}").as_posix(): p for p in (tmp_path / f"out-{n}").rglob("*")}
        assert {name: path.read_bytes() for name, path in found.items() if path.is_file()} == files


def test_every_problem_of_a_dataset_is_reported_at_once(tmp_path: Path) -> None:
    folder = build.coco()
    folder.splits["train"]["annotations"][0]["bbox"] = [0, 0, 500, 10]
    folder.splits["train"]["annotations"][1]["category_id"] = 1
    folder.files["images/train/3.jpg"] = b"broken"
    del folder.files["images/val/101.jpg"]

    with pytest.raises(DatasetInvalid) as caught:
        import_folder(folder.write(tmp_path / "source"), tmp_path, source_format=None, limits=SMALL)

    assert {violation.field for violation in caught.value.violations} == {
        "annotations/instances_train.json: annotations[0].bbox",
        "annotations/instances_train.json: annotations[1].category_id",
        "images/train/3.jpg",
        "annotations/instances_val.json: images[0]: 101.jpg",
    }
    assert "1 missing images" in str(caught.value)


def test_a_hopeless_dataset_lists_fifty_problems_and_counts_the_rest(tmp_path: Path) -> None:
    folder = build.coco()
    folder.splits["train"]["annotations"] = [build.coco_box(n, 1, category_id=99 + n) for n in range(200)]

    with pytest.raises(DatasetInvalid) as caught:
        import_folder(folder.write(tmp_path / "source"), tmp_path, source_format=None, limits=SMALL)

    assert len(caught.value.violations) == MAX_LISTED + 1
    assert "150 more" in caught.value.violations[-1].description
    assert "200 class problems" in str(caught.value)


def test_a_format_nobody_knows_is_refused_with_the_known_ones(importing: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"use one of lfw, celeba, rle_csv, yolo, coco, .*points"):
        importing(build.coco().write(tmp_path / "source"), source_format="kitti")
