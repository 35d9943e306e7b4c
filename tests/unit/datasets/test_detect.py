from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainyard.v1 import dataset_pb2 as pb

from services.core.errors import DatasetInvalid
from services.datasets.detect import IMPORTERS
from services.datasets.formats import FAMILIES, FORMATS, SERVED, request_faults
from tests.builders import datasets as build
from tests.builders import family_datasets as family

LAYOUTS: dict[str, tuple[dict[str, bytes], str]] = {
    "coco": (build.coco().content(), "detection"),
    "voc": (build.voc(), "detection"),
    "yolo": (build.yolo(), "detection"),
    "image_folder": (family.image_folder(), "classification"),
    "mask_pairs": (family.mask_pairs(), "segmentation"),
    "rle_csv": (family.rle_csv(), "segmentation"),
    "lfw": (family.lfw(), "face"),
    "celeba": (family.celeba(), "images"),
    "mnist": (family.mnist(), "classification"),
    "points": (family.points(), "points"),
    "plain_text": (family.plain_text(), "text"),
    "parallel_text": (family.parallel_text(), "parallel_text"),
    "safetensors": (family.weights(), "weights"),
    "unaligned": (family.unaligned(), "domains"),
    "aligned": (family.aligned(), "pairs"),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("top", ["", "my-data/"])
def test_every_layout_is_recognised(importing: Any, tmp_path: Path, name: str, top: str) -> None:
    files, expected = LAYOUTS[name]

    report = importing(build.write_files(tmp_path / "in", {top + path: body for path, body in files.items()})).report

    assert (report.format, report.family) == (name, expected)


@pytest.mark.parametrize("importer", IMPORTERS, ids=lambda each: f"{each.format} as {each.family}")
def test_every_importer_can_be_asked_for_on_the_wire(importer: Any) -> None:
    assert f"DATASET_FORMAT_{importer.format.upper()}" in pb.DatasetFormat.keys()  # noqa: SIM118 - no mapping
    assert request_faults(importer.format, importer.family) == []


def test_what_can_be_asked_for_is_what_there_are_importers_for() -> None:
    # One pair has two importers: where the names of folders tell, and where the family is asked for.
    assert sorted({(each.format, each.family) for each in IMPORTERS}) == sorted(SERVED)


def test_every_format_of_the_wire_has_an_importer() -> None:
    words = {name.removeprefix("DATASET_FORMAT_").lower() for name, value in pb.DatasetFormat.items() if value}

    assert words == set(FORMATS)


@pytest.mark.parametrize(
    ("name", "wanted", "fault"),
    [
        ("imagefolder", None, ("format", "did you mean 'image_folder'?")),
        (None, "clasification", ("family", "did you mean 'classification'?")),
        (None, "gan", ("family", "its recipes learn from 'images'")),
        (None, "representation", ("family", "its recipes learn from 'images'")),
        ("yolo", "face", ("family", "'yolo' holds no face data; use 'detection'")),
    ],
)
def test_what_nobody_imports_is_refused_with_what_was_meant(
    name: str | None, wanted: str | None, fault: tuple[str, str]
) -> None:
    ((field, text),) = request_faults(name, wanted)

    assert field == fault[0]
    assert fault[1] in text


def test_a_stated_family_is_read_even_if_the_layout_looks_like_another(importing: Any, tmp_path: Path) -> None:
    folder = build.write_files(tmp_path / "in", family.people())

    assert importing(folder, family="face").report.format == "identity_folders"
    with pytest.raises(DatasetInvalid, match="in train but none in val"):
        importing(folder)


def test_every_family_has_an_importer() -> None:
    pictures = {"detection", "classification", "segmentation", "face", "images"}
    assert set(FAMILIES) == {*pictures, "pairs", "domains", "points", "text", "parallel_text", "weights"}
