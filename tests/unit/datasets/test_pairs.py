from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.core.errors import DatasetInvalid
from services.datasets.split_rule import SplitRule
from tests.builders import datasets as build
from tests.builders import family_datasets as family

WIDTH, HEIGHT = build.SIZE


def read(done: Any, place: dict[str, Any]) -> bytes:
    with (done.directory / place["shard"]).open("rb") as shard:
        shard.seek(place["offset"])
        body: bytes = shard.read(place["size"])
    return body


def turned(number: int, size: tuple[int, int]) -> bytes:
    """Return a photo that its EXIF tag turns by a quarter."""
    exif, target = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.open(io.BytesIO(build.picture(number, size))).save(target, "JPEG", exif=exif)
    return target.getvalue()


@pytest.mark.parametrize("layout", ["A/{split}/{file}", "{split}/A/{file}", "{split}/a/{file}", "{split}/A/x/{file}"])
def test_an_image_and_its_target_are_found_by_their_stem(importing: Any, tmp_path: Path, layout: str) -> None:
    original = family.aligned()
    files = {}
    for name, body in original.items():
        side, split, file = name.split("/")
        files[layout.replace("A", side).replace("a/", f"{side.lower()}/").format(split=split, file=file)] = body

    done = importing(build.write_files(tmp_path / "in", files), family="pairs")

    assert (done.report.format, done.report.family) == ("aligned", "pairs")
    assert done.header["splits"] == {"train": {"images": 3}, "val": {"images": 2}}
    assert {record["target"]["shard"] for record in done.records} == {"targets-00000.tar"}
    stems = {
        original[f"A/{s}/{n}.jpg"]: original[f"B/{s}/{n}.png"]
        for s in ("train", "val")
        for n in range(3 - (s == "val"))
    }
    assert {read(done, record): read(done, record["target"]) for record in done.records} == stems


def test_without_splits_pairs_are_set_aside_whole(importing: Any, tmp_path: Path) -> None:
    files = {name.replace("train/", ""): body for name, body in family.aligned(train=20, val=0).items()}

    done = importing(build.write_files(tmp_path / "in", files), rule=SplitRule(val_fraction=0.25))

    assert done.header["splits"] == {"train": {"images": 15}, "val": {"images": 5}}
    assert done.report.notes == ["The dataset has no val split: 5 of 20 images were set aside by content hash."]


def test_images_of_one_target_are_set_aside_together(importing: Any, tmp_path: Path) -> None:
    files = {}
    for n in range(20):
        files[f"A/{n}.png"] = build.picture(n, form="PNG")
        files[f"B/{n}.png"] = build.picture(100 + n // 4, form="PNG")

    done = importing(build.write_files(tmp_path / "in", files), rule=SplitRule(val_fraction=0.2))

    assert done.header["splits"] == {"train": {"images": 16}, "val": {"images": 4}}
    assert done.report.split_leakage.count == 0


def test_a_target_in_two_splits_is_leakage_and_two_targets_of_one_image_a_conflict(
    importing: Any, tmp_path: Path
) -> None:
    files = family.aligned()
    files["B/val/0.png"] = files["B/train/0.png"]
    files["A/train/2.jpg"] = files["A/train/1.jpg"]

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.split_leakage.examples == ["A/train/0.jpg, A/val/0.jpg"]
    assert report.duplicate_images.count == report.conflicting_labels.count == 1
    assert any("more than one target" in note for note in report.notes)


def test_the_report_counts_the_bytes_of_both_sides(importing: Any, tmp_path: Path) -> None:
    files = family.aligned()

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.image_bytes == sum(map(len, files.values()))


def test_sizes_are_compared_as_people_see_them(importing: Any, tmp_path: Path) -> None:
    files = family.aligned()
    files["A/train/0.jpg"] = turned(0, (HEIGHT, WIDTH))
    assert importing(build.write_files(tmp_path / "upright", files)).report.splits["train"].images == 3

    files["A/train/0.jpg"] = turned(0, (WIDTH, HEIGHT))
    with pytest.raises(DatasetInvalid, match=r"B/train/0\.png: is 64x48, but its partner is 48x64"):
        importing(build.write_files(tmp_path / "turned", files))


def test_halves_of_one_file_are_a_pair(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "in", family.side_by_side()), family="pairs")

    assert done.report.format == "side_by_side"
    assert done.header["splits"] == {"train": {"images": 3}, "val": {"images": 2}}
    for record in done.records:
        assert (record["width"], record["height"], record["side_by_side"]) == (2 * WIDTH, HEIGHT, True)
        assert "target" not in record


@pytest.mark.parametrize(
    ("body", "width"),
    [
        pytest.param(build.picture(0, (127, 48)), 127, id="as stored"),
        pytest.param(turned(0, (48, 127)), 127, id="on its side"),
    ],
)
def test_a_file_that_does_not_halve_is_refused(importing: Any, tmp_path: Path, body: bytes, width: int) -> None:
    files = {**family.side_by_side(), "val/9.jpg": body}

    with pytest.raises(DatasetInvalid, match=rf"val/9\.jpg: has an odd width, {width}, .*; store A on the left"):
        importing(build.write_files(tmp_path / "in", files), family="pairs")


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({n: b for n, b in family.unaligned().items() if n != "trainB/0.jpg"}, id="domains"),
        pytest.param({f"train/{name}/1.png": build.picture(n) for n, name in enumerate("Ax")}, id="one side"),
        pytest.param({f"{name}/{n}.png": build.picture(n) for n, name in enumerate("AB")}, id="no common stem"),
    ],
)
def test_images_of_one_side_are_never_cut_in_two(importing: Any, tmp_path: Path, files: family.Files) -> None:
    with pytest.raises(DatasetInvalid, match="no halves side by side; import it with --format aligned"):
        importing(build.write_files(tmp_path / "in", files), family="pairs")


@pytest.mark.parametrize("names", [("input", "target"), ("inputs", "targets"), ("Input", "Target")])
def test_inputs_and_targets_are_pairs_by_equal_stems(importing: Any, tmp_path: Path, names: tuple[str, str]) -> None:
    sides = dict(zip("AB", names, strict=True))
    files = {f"{sides[name[0]]}{name[1:]}": body for name, body in family.aligned().items()}

    done = importing(build.write_files(tmp_path / "in", files))

    assert (done.report.format, done.report.family) == ("aligned", "pairs")
    inputs = {body for name, body in files.items() if name.startswith(names[0])}
    assert {read(done, record) for record in done.records} == inputs


def test_two_folders_of_equal_stems_are_not_cut_in_two(importing: Any, tmp_path: Path) -> None:
    files = {f"train/{name}/{n}.png": build.picture(10 * len(name) + n) for name in ("day", "dusk") for n in range(4)}

    with pytest.raises(
        DatasetInvalid, match=r"day: has the stems of 'dusk', .* rename the folder .* A, the other one B"
    ):
        importing(build.write_files(tmp_path / "in", files), family="pairs")


def test_folders_of_other_stems_hold_halves_side_by_side(importing: Any, tmp_path: Path) -> None:
    files = {
        f"train/{name}/{name}{n}.png": build.picture(10 * len(name) + n) for name in ("day", "dusk") for n in range(4)
    }

    assert importing(build.write_files(tmp_path / "in", files), family="pairs").report.format == "side_by_side"


def test_folders_called_a_and_b_without_common_stems_stay_classes(importing: Any, tmp_path: Path) -> None:
    files = {f"{name}/{name}{n}.png": build.picture(10 * ord(name) + n) for name in "AB" for n in range(4)}
    folder = build.write_files(tmp_path / "in", files)

    assert importing(folder).report.family == "classification"
    with pytest.raises(DatasetInvalid, match=r"A/A0\.png: has no partner; add A0 under B/"):
        importing(folder, source_format="aligned")


def test_the_same_pairs_give_the_same_bytes_whatever_their_files_are_called(importing: Any, tmp_path: Path) -> None:
    files = family.aligned()
    renamed = {name.replace("/0.", "/zz."): body for name, body in files.items()}

    one, other = (
        importing(build.write_files(tmp_path / str(n), each)).directory for n, each in enumerate((files, renamed))
    )

    names = sorted(path.name for path in one.iterdir())
    assert "targets-00000.tar" in names
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
