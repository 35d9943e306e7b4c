"""Every layout as an archive through the manager and its child process, and back as what trains on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.settings import Settings
from services.datasets.manager import DatasetManager
from services.db.database import Database
from services.storage import layout
from services.storage.local import LocalStore
from services.storage.manifest import download_directory
from tests.builders import datasets as build
from tests.builders import family_datasets as family
from workers.engine.tensorfile import read_tensors
from workers.families.records import RecordSet, read_points
from workers.families.texts import read_pairs, read_text

PROJECT = "lab"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DatasetManager, LocalStore]]:
    settings = Settings(state_dir=tmp_path_factory.mktemp("state"))
    database = Database(settings.resolved_database_url)
    database.migrate()
    store = LocalStore(settings.state_dir / "objects")
    yield DatasetManager(database, store, settings), store
    database.dispose()


@pytest.mark.parametrize(
    ("name", "wanted", "files", "counts"),
    [
        ("image_folder", "classification", family.image_folder(), {"images": 6}),
        ("image_folder", "images", family.image_folder(), {"images": 6}),
        ("mask_pairs", "segmentation", family.mask_pairs(), {"images": 3}),
        ("aligned", "pairs", family.aligned(), {"images": 3}),
        ("side_by_side", "pairs", family.side_by_side(), {"images": 3}),
        ("unaligned", "domains", family.unaligned(train=4), {"images": 6}),
        ("image_folder", "domains", family.image_folder(), {"images": 6}),
        ("rle_csv", "segmentation", family.rle_csv(), {"images": 3}),
        ("voc", "segmentation", family.voc_masks(), {"images": 3}),
        ("coco", "segmentation", family.coco_masks({"segmentation": [family.square(4, 4, 9)]}), {"images": 1}),
        ("identity_folders", "face", family.people(), {"images": 6, "identities": 2}),
        ("lfw", "face", family.lfw(), {"images": 6, "identities": 2}),
        ("celeba", "face", family.celeba(count=8), {"images": 4, "identities": 2}),
        ("celeba", "images", family.celeba(), {"images": 4}),
        ("mnist", "classification", family.mnist(packed=True), {"images": 6}),
        ("points", "points", family.points(), {"points": 3}),
        ("plain_text", "text", family.plain_text(), {"lines": 2, "characters": 11}),
        ("parallel_text", "parallel_text", family.parallel_text(), {"pairs": 2}),
        ("safetensors", "weights", family.weights(), {}),
    ],
)
def test_every_layout_becomes_a_version_that_is_read_back(
    state: tuple[DatasetManager, LocalStore],
    tmp_path: Path,
    name: str,
    wanted: str,
    files: family.Files,
    counts: dict[str, int],
) -> None:
    manager, store = state
    archive = build.zipped(tmp_path / "data.zip", files)

    version = manager.create(
        PROJECT, request_id="", dataset_id=name.replace("_", "-"), archive_path=archive, family=wanted
    )

    assert (version.format, version.family, version.counts.get("train", {})) == (name, wanted, counts)
    copy = tmp_path / "copy"
    download_directory(
        store, layout.dataset_prefix(PROJECT, version.dataset_id, version.id), copy, version.manifest_sha256
    )
    if wanted == "points":
        assert len(read_points(copy, "train")) == counts["points"]
        return
    if wanted == "text":
        assert read_text(copy, "train") == "a cat\na dog\n"
        return
    if wanted == "parallel_text":
        assert len(read_pairs(copy, "train")) == counts["pairs"]
        return
    if wanted == "weights":
        tensors = read_tensors(copy / "weights.safetensors")
        assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {"head.weight": (2, 3), "n": ()}
        return
    records = RecordSet(copy, "train", families=(wanted,))
    assert len(records) == counts["images"]
    assert all(records.image(n).shape[0] == 3 for n in range(len(records)))
    if wanted == "pairs":
        assert all(records.target(n).shape == records.image(n).shape == (3, 48, 64) for n in range(len(records)))
    if wanted == "segmentation":
        assert all(records.mask(n).shape == records.image(n).shape[1:] for n in range(len(records)))
