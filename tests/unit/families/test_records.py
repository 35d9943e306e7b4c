from __future__ import annotations

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from services.core.errors import DatasetInvalid
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders import datasets as build
from tests.builders import family_datasets as family
from workers.families.records import RecordSet, StoredImages, read_points

ANY = ("classification", "segmentation", "face", "images", "detection")


def imported(root: Path, files: family.Files, **choices: Any) -> Path:
    out = root / "canonical"
    out.mkdir()
    import_folder(build.write_files(root / "in", files), out, source_format=None, limits=ImportLimits(), **choices)
    return out


def test_images_come_with_the_labels_of_their_folders(tmp_path: Path) -> None:
    files = family.image_folder(classes=("cat", "dog", "owl"))
    records = RecordSet(imported(tmp_path, files), "train", families=("images", "classification"))

    assert (len(records), records.meta.classes, records.has_labels) == (9, ("cat", "dog", "owl"), True)
    assert records.labels.dtype == torch.int64
    for n in range(len(records)):
        body = records.read(n)
        (name,) = [name for name, original in files.items() if original == body]
        assert records.meta.classes[records.labels[n]] == name.split("/")[1]
        original = np.asarray(Image.open(tmp_path / "in" / name).convert("RGB"))
        assert (records.image(n).permute(1, 2, 0).numpy() == original).all()


def test_masks_lie_beside_their_images(tmp_path: Path) -> None:
    files = family.mask_pairs()
    records = RecordSet(imported(tmp_path, files), "train", families=("segmentation",))

    for n in range(len(records)):
        (name,) = [name for name, original in files.items() if original == records.read(n)]
        mask = records.mask(n)
        assert mask.dtype == torch.uint8
        assert (mask.numpy() == family.mask(int(Path(name).stem))).all()


def test_attributes_and_pairs_refer_to_the_records(tmp_path: Path) -> None:
    celeba = RecordSet(imported(tmp_path, family.celeba()), "train", families=("images",))
    lfw_root = tmp_path / "lfw"
    lfw_root.mkdir()
    faces = RecordSet(imported(lfw_root, family.lfw()), "val", families=("face",))

    assert celeba.attributes.shape == (4, 2)
    assert celeba.attributes.sum(0).tolist() == [2, 0]
    assert not celeba.has_labels
    folds = faces.pairs()
    assert [len(fold) for fold in folds] == [2, 2]
    for one, other, is_same in (pair for fold in folds for pair in fold):
        assert (faces.labels[one] == faces.labels[other]).item() is is_same
    assert faces.meta.identities == ("ann", "bob", "cy", "dan")


def test_photos_are_upright_where_nothing_counts_in_stored_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = family.image_folder()
    target = tmp_path / "turned.jpg"
    Image.new("RGB", (64, 48)).save(target, exif=exif)
    files["train/cat/0.png"] = target.read_bytes()
    records = RecordSet(imported(tmp_path, files), "train", families=("classification",))

    shapes = {tuple(records.image(n).shape) for n in range(len(records))}

    assert shapes == {(3, 48, 64), (3, 64, 48)}


def test_masks_and_their_images_stay_as_stored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = family.mask_pairs()
    target = tmp_path / "turned.jpg"
    Image.new("RGB", (64, 48)).save(target, exif=exif)
    files["images/train/0.jpg"] = target.read_bytes()
    records = RecordSet(imported(tmp_path, files), "train", families=("segmentation",))

    assert {tuple(records.image(n).shape[1:]) for n in range(len(records))} == {(48, 64)}
    assert {tuple(records.mask(n).shape) for n in range(len(records))} == {(48, 64)}


def test_threads_and_forked_processes_read_the_same_bytes(tmp_path: Path) -> None:
    records = RecordSet(imported(tmp_path, family.image_folder(train=8)), "train", families=("classification",))
    expected = [records.read(n) for n in range(len(records))]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(records.read, list(range(len(records))) * 20)) == expected * 20

    pid = os.fork()
    if pid == 0:
        os._exit(0 if [records.read(n) for n in range(len(records))] == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda d: (d / "dataset.json").write_text("{"), "dataset.json is damaged", id="half a header"),
        pytest.param(lambda d: (d / "annotations.jsonl").unlink(), "annotations.jsonl is damaged", id="no lines"),
        pytest.param(lambda d: edit_header(d, family="text"), "a text dataset; this recipe reads", id="another family"),
        pytest.param(lambda d: edit_header(d, classes=["cat"]), "label outside 0 to 0", id="a label too many"),
        pytest.param(lambda d: edit_header(d, attributes=["tall"]), "has 0 attributes", id="an attribute too many"),
        pytest.param(lambda d: edit_records(d, size=None), "annotations.jsonl is damaged", id="no size"),
        pytest.param(lambda d: edit_records(d, split="test"), "no image in the split 'train'", id="no such split"),
    ],
)
def test_a_broken_index_is_refused_with_a_reason(tmp_path: Path, spoil: Any, reason: str) -> None:
    directory = imported(tmp_path, family.image_folder())
    spoil(directory)

    with pytest.raises(DatasetInvalid, match=reason):
        RecordSet(directory, "train", families=ANY)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"offset": 10**9}, "ends inside", id="shard cut short"),
        pytest.param({"shard": "images-00009.tar"}, "cannot read images-00009.tar", id="shard missing"),
        pytest.param({"size": 60}, "damaged", id="half an image"),
    ],
)
def test_a_broken_image_is_named_when_it_is_read(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    directory = imported(tmp_path, family.image_folder())
    edit_records(directory, **fields)
    records = RecordSet(directory, "train", families=ANY)

    with pytest.raises(DatasetInvalid, match=reason):
        records.image(0)


def test_a_mask_of_another_size_or_kind_is_refused(tmp_path: Path) -> None:
    directory = imported(tmp_path, family.mask_pairs())
    edit_records(directory, width=63)

    with pytest.raises(DatasetInvalid, match="not an index mask of its image's size"):
        RecordSet(directory, "train", families=ANY).mask(0)


def test_a_mask_of_classes_that_nobody_named_is_refused(tmp_path: Path) -> None:
    directory = imported(tmp_path, family.mask_pairs())
    edit_header(directory, classes=["background", "road"])

    with pytest.raises(DatasetInvalid, match=r"train/[0-9a-f]+\.png has pixels of the unknown class 2; import"):
        RecordSet(directory, "train", families=ANY).mask(0)


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_picture_that_is_not_the_imported_one_is_refused_even_if_it_decodes(tmp_path: Path, kind: str) -> None:
    directory = imported(tmp_path, family.mask_pairs())
    lines = [json.loads(line) for line in (directory / "annotations.jsonl").read_text().splitlines()]
    one, other = (line if kind == "image" else line["mask"] for line in lines[:2])
    one |= {key: other[key] for key in ("offset", "size")}
    (directory / "annotations.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    records = RecordSet(directory, "train", families=ANY)

    with pytest.raises(DatasetInvalid, match=f"{one['member']} is damaged: its bytes are not those that were imported"):
        getattr(records, kind)(0)


def test_what_is_not_there_is_said_clearly(tmp_path: Path) -> None:
    directory = imported(tmp_path, family.celeba())
    records = RecordSet(directory, "train", families=ANY)

    with pytest.raises(DatasetInvalid, match="the images have no labels"):
        _ = records.labels
    with pytest.raises(DatasetInvalid, match="has no mask"):
        records.mask(0)
    assert records.pairs() == []


def test_pairs_of_images_that_are_not_held_out_are_refused(tmp_path: Path) -> None:
    directory = imported(tmp_path, family.lfw())
    (directory / "pairs.json").write_text('{"folds": [[["val/nobody.jpg", "val/nobody.jpg", 1]]]}')

    with pytest.raises(DatasetInvalid, match=r"pairs\.json is damaged"):
        RecordSet(directory, "val", families=ANY).pairs()


def test_points_come_as_they_were_written(tmp_path: Path) -> None:
    directory = imported(tmp_path, family.points())

    assert read_points(directory, "train").tolist() == [[1, 2], [3.5, -4], [5, pytest.approx(0.6)]]
    with pytest.raises(DatasetInvalid, match=r"no points-test\.npy"):
        read_points(directory, "test")


def test_images_beyond_the_budget_are_loaded_anew_and_the_others_once() -> None:
    loads: list[int] = []

    def load(index: int) -> torch.Tensor:
        loads.append(index)
        return torch.full((3, 512, 512), index, dtype=torch.uint8)

    images = StoredImages(3, load, shape=(3, 512, 512), cache_mib=1)

    for _ in range(2):
        batch = images.gather(np.array([2, 0, 1, 0]))
        assert batch[:, 0, 0, 0].tolist() == [2, 0, 1, 0]
    assert sorted(loads) == [0, 1, 1, 2, 2]


def edit_header(directory: Path, **fields: Any) -> None:
    header = json.loads((directory / "dataset.json").read_text())
    (directory / "dataset.json").write_text(json.dumps(header | fields))


def edit_records(directory: Path, **fields: Any) -> None:
    path = directory / "annotations.jsonl"
    path.write_text("".join(json.dumps(json.loads(line) | fields) + "\n" for line in path.read_text().splitlines()))


def test_targets_lie_beside_their_images_and_come_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.jpg"
    Image.open(io.BytesIO(build.picture(5, (48, 64)))).save(turned, exif=exif)
    files = {**family.aligned(), "B/train/0.jpg": turned.read_bytes()}
    del files["B/train/0.png"]
    records = RecordSet(imported(tmp_path, files), "train", families=("pairs",))

    stems = []
    for n in range(len(records)):
        (name,) = [name for name, original in files.items() if original == records.read(n)]
        stem = Path(name).stem
        stems.append(stem)
        target = tmp_path / "in" / "B" / "train" / (f"{stem}.jpg" if stem == "0" else f"{stem}.png")
        expected = np.asarray(Image.open(target).convert("RGB"))
        expected = np.rot90(expected, k=-1) if stem == "0" else expected
        assert (records.target(n).permute(1, 2, 0).numpy() == expected).all()
        assert all(
            torch.equal(one, other)
            for one, other in zip(records.pair(n), (records.image(n), records.target(n)), strict=True)
        )
    assert sorted(stems) == ["0", "1", "2"]


def test_halves_of_a_file_are_an_image_and_its_target(tmp_path: Path) -> None:
    records = RecordSet(imported(tmp_path, family.side_by_side(), family="pairs"), "train", families=("pairs",))

    for n in range(len(records)):
        whole = np.asarray(Image.open(io.BytesIO(records.read(n))))
        assert (records.image(n).permute(1, 2, 0).numpy() == whole[:, :64]).all()
        assert (records.target(n).permute(1, 2, 0).numpy() == whole[:, 64:]).all()
        assert all(
            torch.equal(one, other)
            for one, other in zip(records.pair(n), (records.image(n), records.target(n)), strict=True)
        )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"target": None}, "has no target; import pairs", id="none"),
        pytest.param({"side_by_side": True, "target": None}, "does not halve evenly", id="odd halves"),
    ],
)
def test_a_pair_of_one_is_refused(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    files = {f"{side}/{n}.png": build.picture(10 * n, (63, 48), form="PNG") for side in "AB" for n in range(4)}
    directory = imported(tmp_path, files, family="pairs")
    edit_records(directory, **fields)

    with pytest.raises(DatasetInvalid, match=reason):
        RecordSet(directory, "train", families=("pairs",)).target(0)


@pytest.mark.parametrize("value", [{}, "?", [1], {"shard": "targets-00000.tar"}])
def test_a_target_without_a_place_is_a_damaged_index(tmp_path: Path, value: object) -> None:
    directory = imported(tmp_path, family.aligned())
    edit_records(directory, target=value)

    with pytest.raises(DatasetInvalid, match=r"annotations\.jsonl is damaged"):
        RecordSet(directory, "train", families=("pairs",))
