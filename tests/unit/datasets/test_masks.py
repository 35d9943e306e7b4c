from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from services.core.errors import DatasetInvalid
from services.datasets.raster import fill_polygon, fill_runs, unpack_runs
from services.datasets.source import MaskUnusable
from tests.builders import datasets as build
from tests.builders import family_datasets as family

WIDTH, HEIGHT = build.SIZE


def masks_of(done: Any, split: str) -> list[Any]:
    found = []
    for record in done.of_split(split):
        place = record["mask"]
        with (done.directory / place["shard"]).open("rb") as shard:
            shard.seek(place["offset"])
            found.append(np.array(Image.open(io.BytesIO(shard.read(place["size"])))))
    return found


# --- pairs of images and masks


def test_masks_of_indices_come_through_unchanged_beside_their_image(importing: Any, tmp_path: Path) -> None:
    files = family.mask_pairs()
    done = importing(build.write_files(tmp_path / "in", files))

    assert done.header["family"] == "segmentation"
    assert done.header["classes"] == ["background", "road", "car"]
    assert {record["mask"]["shard"] for record in done.records} == {"masks-00000.tar"}
    for record, mask in zip(done.of_split("train"), masks_of(done, "train"), strict=True):
        with (done.directory / record["shard"]).open("rb") as shard:
            shard.seek(record["offset"])
            body = shard.read(record["size"])
        (name,) = [name for name, original in files.items() if original == body]
        number = int(Path(name).stem)
        assert (mask == family.mask(number)).all()


def test_a_mask_that_decodes_into_other_classes_is_refused_by_its_checksum(importing: Any, tmp_path: Path) -> None:
    files = family.mask_pairs()
    right = np.random.default_rng(0).integers(0, 2, (48, 64), dtype=np.uint8)
    good = family.png(right)

    def is_silent(encoded: bytes) -> bool:
        try:
            pixels = np.asarray(Image.open(io.BytesIO(encoded)))
        except (OSError, SyntaxError):
            return False
        return bool(pixels.max() <= 2 and (pixels != right).any())

    places = range(good.index(b"IDAT") + 6, len(good) - 16)
    flips = (good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :] for at in places for bit in range(8))
    files["masks/train/0.png"] = next(filter(is_silent, flips))

    with pytest.raises(DatasetInvalid, match=r"masks/train/0\.png.*do not fit their checksum"):
        importing(build.write_files(tmp_path / "in", files))


def test_the_report_counts_pixels_by_class(importing: Any, tmp_path: Path) -> None:
    report = importing(build.write_files(tmp_path / "in", family.mask_pairs(train=1))).report

    counts = np.bincount(family.mask(0).reshape(-1), minlength=256)
    assert report.splits["train"].pixels_per_class == dict(
        zip(("background", "road", "car"), map(int, counts[:3]), strict=True)
    )
    assert report.splits["train"].ignored_pixels == counts[255] == WIDTH


@pytest.mark.parametrize(
    "classes",
    [
        pytest.param(b"background 0 0 0\nroad 128 0 0\ncar 0 128 0\nignore 255 255 255\n", id="name first"),
        pytest.param(b"0 0 0 background\n128 0 0 road\n0 128 0 car\n255 255 255 void\n", id="colour first"),
        pytest.param(
            b"# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,0,0::\ncar:0,128,0::\nvoid:255,255,255::\n",
            id="CVAT",
        ),
    ],
)
@pytest.mark.parametrize("form", ["RGB", "palette"])
def test_masks_of_colours_become_indices(importing: Any, tmp_path: Path, classes: bytes, form: str) -> None:
    files = family.mask_pairs()
    files["labelmap.txt" if b"::" in classes else "classes.txt"] = classes
    if b"::" in classes:
        del files["classes.txt"]
    table = np.zeros((256, 3), dtype=np.uint8)
    table[[1, 2, 255]] = [[128, 0, 0], [0, 128, 0], [255, 255, 255]]
    for name in [name for name in files if name.startswith("masks/")]:
        indices = np.array(Image.open(io.BytesIO(files[name])))
        files[name] = family.png(table[indices]) if form == "RGB" else family.png(indices, palette=table.tobytes())

    done = importing(build.write_files(tmp_path / "in", files))

    assert done.header["classes"] == ["background", "road", "car"]
    expected = sorted(family.mask(n).tobytes() for n in range(3))
    assert sorted(mask.tobytes() for mask in masks_of(done, "train")) == expected


def test_a_blurred_colour_mask_is_refused_with_the_place(importing: Any, tmp_path: Path) -> None:
    files = {**family.mask_pairs(), "classes.txt": b"background 0 0 0\nroad 1 1 1\ncar 2 2 2\nvoid 255 255 255\n"}
    pixels = np.repeat(family.mask(1)[..., None], 3, axis=2)
    pixels[7, 9] = (1, 1, 2)
    files["masks/val/0.png"] = family.png(pixels)

    with pytest.raises(Exception, match="colour 1 1 2 belongs to no class; scale masks by nearest"):
        importing(build.write_files(tmp_path / "in", files))


def test_one_colour_that_is_wrong_in_every_mask_is_said_once(importing: Any, tmp_path: Path) -> None:
    files = {**family.mask_pairs(), "classes.txt": b"background 0 0 0\nroad 1 1 1\ncar 2 2 2\nvoid 255 255 255\n"}
    for place, name in enumerate(name for name in family.mask_pairs() if name.startswith("masks/")):
        pixels = np.repeat(family.mask(1)[..., None], 3, axis=2)
        pixels[place, 9] = (1, 1, 2)
        files[name] = family.png(pixels)

    with pytest.raises(DatasetInvalid) as refused:
        importing(build.write_files(tmp_path / "in", files))

    (violation,) = refused.value.violations
    assert "(and 4 more like it, such as " in violation.description
    assert violation.count == 5


def test_a_mask_may_be_called_mask_and_splits_may_come_first(importing: Any, tmp_path: Path) -> None:
    files = {"classes.txt": b"background\nroad\ncar\n"}
    for name, body in family.mask_pairs().items():
        kind, *rest = name.split("/")
        if rest:
            stem = rest[1] if kind == "images" else rest[1].replace(".", "_mask.")
            files[f"{rest[0]}/{'image' if kind == 'images' else 'mask'}/{stem}"] = body

    done = importing(build.write_files(tmp_path / "in", files))

    assert done.header["splits"] == {"train": {"images": 3}, "val": {"images": 2}}


# --- VOC


def test_voc_masks_keep_the_palettes_index_and_ignore_borders(importing: Any, tmp_path: Path) -> None:
    done = importing(build.write_files(tmp_path / "VOC2012", family.voc_masks()))

    assert (done.report.format, done.report.family) == ("voc", "segmentation")
    assert done.header["classes"][:3] == ["background", "aeroplane", "bicycle"]
    assert len(done.header["classes"]) == 21
    expected = sorted(family.mask(n).tobytes() for n in range(3))
    assert sorted(mask.tobytes() for mask in masks_of(done, "train")) == expected


def test_voc_with_boxes_and_masks_is_read_as_what_is_asked_for(importing: Any, tmp_path: Path) -> None:
    folder = build.write_files(tmp_path / "in", {**build.voc(), **family.voc_masks()})

    assert importing(folder).header["family"] == "detection"
    assert importing(folder, family="segmentation").header["splits"]["train"] == {"images": 3}


def test_voc_images_no_list_names_and_test_images_without_masks_are_counted(importing: Any, tmp_path: Path) -> None:
    files = family.voc_masks()
    files["ImageSets/Segmentation/train.txt"] = b"2007_000000\n2007_000001\n"
    files["ImageSets/Segmentation/test.txt"] = b"2008_000001\n"

    report = importing(build.write_files(tmp_path / "in", files)).report

    assert report.ignored == {"masks no ImageSets list names": 1, "test images without a mask": 1}


# --- COCO


def test_coco_polygons_are_painted_small_over_large_whatever_their_order(importing: Any, tmp_path: Path) -> None:
    small = {"category_id": 8, "segmentation": [family.square(12, 10, 4)]}
    large = {"category_id": 3, "segmentation": [family.square(10, 8, 20)]}
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[8:28, 10:30] = 1
    expected[10:14, 12:16] = 2

    for n, outlines in enumerate(((small, large), (large, small))):
        done = importing(build.write_files(tmp_path / str(n), family.coco_masks(*outlines)), family="segmentation")

        assert done.header["classes"] == ["background", "cat", "dog"]
        assert (masks_of(done, "train")[0] == expected).all()


def test_coco_run_lengths_go_down_the_columns_and_crowds_are_ignored(importing: Any, tmp_path: Path) -> None:
    crowd = {"iscrowd": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [2, 3, HEIGHT * WIDTH - 5]}}
    thing = {"segmentation": [family.square(0, 4, 2)]}

    done = importing(build.write_files(tmp_path / "in", family.coco_masks(thing, crowd)), family="segmentation")

    (mask,) = masks_of(done, "val")
    assert mask[:7, 0].tolist() == [0, 0, 255, 255, 1, 1, 0]
    assert mask[:7, 1].tolist() == [0, 0, 0, 0, 1, 1, 0]


def test_a_category_called_background_keeps_its_name(importing: Any, tmp_path: Path) -> None:
    files = family.coco_masks({"segmentation": [family.square(3, 3, 9)]})
    files = {name: body.replace(b'"dog"', b'"background"') for name, body in files.items()}

    done = importing(build.write_files(tmp_path / "in", files), family="segmentation")

    assert done.header["classes"] == ["unlabelled", "cat", "background"]


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        pytest.param([[1, 1, 5, 5]], "three corners", id="two corners"),
        pytest.param([], "three corners", id="none"),
        pytest.param([[1, 1, 5, 5, 9, "x"]], "three corners", id="text"),
        pytest.param({"size": [9, 9], "counts": [81]}, "is of a 9x9 image", id="another size"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": [5]}, "add up to 5", id="too short"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": "ab\x7f"}, "damaged", id="characters no packing has"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": "oooooooooooooooo"}, "damaged", id="an endless number"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": "P"}, "cut short", id="half a number"),
    ],
)
def test_an_impossible_outline_is_refused(importing: Any, tmp_path: Path, outline: Any, reason: str) -> None:
    folder = build.write_files(tmp_path / "in", family.coco_masks({"segmentation": outline}))

    with pytest.raises(Exception, match=reason):
        importing(folder, family="segmentation")


# --- pixels


def test_a_polygon_covers_the_pixels_whose_middle_it_holds() -> None:
    patch = fill_polygon([1.4, 0.6, 4.6, 0.6, 4.6, 2.4, 1.4, 2.4], 6, 4)
    painted = np.zeros((4, 6), dtype=np.uint8)
    patch.paint(painted, 7)

    assert painted.tolist() == [[0] * 6, [0, 7, 7, 7, 7, 0], [0] * 6, [0] * 6]


@given(
    corners=st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=3, max_size=8),
)
def test_polygons_agree_with_the_crossing_number_of_every_pixel(corners: list[tuple[float, float]]) -> None:
    patch = fill_polygon([side for corner in corners for side in corner], 20, 16)
    painted = np.zeros((16, 20), dtype=np.uint8)
    patch.paint(painted, 1)

    for y in range(16):
        for x in range(20):
            assert painted[y, x] == crossings(corners, x + 0.5, y + 0.5) % 2


def crossings(corners: list[tuple[float, float]], x: float, y: float) -> int:
    count = 0
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y1 <= y) != (y2 <= y):
            count += x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x
    return count


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30))
def test_packed_run_lengths_come_back_as_they_were(runs: list[int]) -> None:
    packed = pack(runs)

    assert unpack_runs(packed, len(runs)) == runs
    if len(runs) > 1:
        with pytest.raises(MaskUnusable, match="more than"):
            unpack_runs(packed, len(runs) - 1)


def pack(runs: list[int]) -> str:
    """Write run lengths as the format's description says: the reverse of what is tested."""
    text = ""
    for n, run in enumerate(runs):
        value = run - runs[n - 2] if n > 2 else run
        while True:
            bits, value = value & 0x1F, value >> 5
            is_done = value == (-1 if bits & 0x10 else 0)
            text += chr((bits if is_done else bits | 0x20) + 48)
            if is_done:
                break
    return text


def test_runs_agree_with_the_reference_implementation() -> None:
    from faster_coco_eval.core import mask as reference

    pixels = np.asfortranarray(np.random.default_rng(0).random((23, 17)) < 0.4).astype(np.uint8)
    packed = reference.encode(np.asfortranarray(pixels))["counts"]
    text = packed.decode() if isinstance(packed, bytes) else packed

    ours = fill_runs(unpack_runs(text, 23 * 17 + 1), 17, 23)

    assert (ours.shape == pixels.astype(bool)).all()
