from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from services.core.errors import DatasetInvalid
from workers.families.base import Placement
from workers.families.detection.config import Augment, Data
from workers.families.detection.data import Batch, SquareImages, TrainBatches, read_dataset

CPU = Placement(torch.device("cpu"), None, torch.channels_last)
DATA = Data(image_size=64, batch_size=8)


def batches(directory: Path, *, seed: int = 0, data: Data = DATA) -> TrainBatches:
    return TrainBatches(read_dataset(directory).splits["train"], data=data, augmentation=Augment(), seed=seed)


def tensors(batch: Batch) -> list[torch.Tensor]:
    rendered = batch.to(CPU, Augment())
    return [rendered.images, rendered.boxes, rendered.labels]


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def edit_header(directory: Path, **fields: object) -> None:
    path = directory / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_records(directory: Path, **fields: object) -> None:
    path = directory / "annotations.jsonl"
    lines = [json.dumps(json.loads(line) | fields) for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines))


@pytest.fixture
def copied(scenes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "copy"))


def test_a_batch_depends_on_its_step_alone(scenes):
    fresh, used = batches(scenes), batches(scenes)
    for step in (0, 5, 2):
        used.batch(step)
    torch.rand(3)

    assert same(used.batch(3), fresh.batch(3))
    assert same(used.batch(3), used.batch(3))


def test_steps_and_seeds_differ(scenes):
    source = batches(scenes)

    assert not same(source.batch(0), source.batch(1))
    assert not same(source.batch(0), batches(scenes, seed=1).batch(0))


def test_the_cache_changes_nothing(scenes):
    cached, uncached = batches(scenes), batches(scenes, data=DATA.model_copy(update={"cache_mib": 0}))

    assert all(same(cached.batch(step), uncached.batch(step)) for step in range(3))


def test_a_partial_cache_changes_nothing(scenes):
    records = read_dataset(scenes).splits["train"]
    partial, none = SquareImages(records, size=300, cache_mib=1), SquareImages(records, size=300, cache_mib=0)
    rows = np.array([0, 11, 5, 0])

    assert torch.equal(partial.gather(rows), none.gather(rows))


def test_every_image_comes_once_an_epoch(scenes):
    source = TrainBatches(
        read_dataset(scenes).splits["train"],
        data=Data(image_size=64, batch_size=4),
        augmentation=Augment(scale=(1, 1), translate=0, flip=0, exposure=1, saturation=1),
        seed=0,
    )

    seen = torch.cat([source.batch(step).images for step in range(source.steps_per_epoch)])

    assert len({image.numpy().tobytes() for image in seen}) == 12


def test_a_set_smaller_than_a_batch_fills_it(scenes):
    source = batches(scenes, data=Data(image_size=64, batch_size=40))

    assert source.steps_per_epoch == 1
    assert len(source.batch(0).images) == 40


def test_crowds_are_no_truths(copied):
    edit_records(copied, iscrowd=[1], labels=[1], boxes=[[0, 0, 9, 9]], area=[81])

    assert not batches(copied).batch(0).labels.any()


def test_difficult_objects_count_as_crowds(copied):
    edit_records(copied, iscrowd=[0], difficult=[1], labels=[1], boxes=[[0, 0, 9, 9]], area=[81])

    assert all(record.is_crowd.all() for record in read_dataset(copied).splits["val"])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda d: edit_header(d, family="text"), "is a text dataset", id="another family"),
        pytest.param(lambda d: (d / "dataset.json").unlink(), "dataset.json is damaged", id="no header"),
        pytest.param(
            lambda d: (d / "annotations.jsonl").write_text("{"), "annotations.jsonl is damaged", id="half a line"
        ),
        pytest.param(lambda d: edit_records(d, split="train"), "split 'val'", id="nothing held out"),
        pytest.param(
            lambda d: edit_records(d, labels=[], boxes=[], iscrowd=[], area=[]), "has a box", id="no box anywhere"
        ),
        pytest.param(lambda d: edit_header(d, classes=["one"]), "outside 1 to 1", id="label without class"),
    ],
)
def test_a_broken_index_is_refused_with_a_reason(copied, spoil, reason):
    spoil(copied)

    with pytest.raises(DatasetInvalid, match=reason):
        read_dataset(copied)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"offset": 10**9}, "ends inside", id="shard cut short"),
        pytest.param({"shard": "images-00009.tar"}, "cannot read images-00009.tar", id="shard missing"),
        pytest.param({"size": 60}, "damaged", id="half an image"),
        pytest.param({"width": 65}, "is not 65 x 64", id="another image"),
    ],
)
def test_a_broken_image_is_named_when_it_is_used(copied, fields, reason):
    edit_records(copied, **fields)

    with pytest.raises(DatasetInvalid, match=reason):
        batches(copied).batch(0)
