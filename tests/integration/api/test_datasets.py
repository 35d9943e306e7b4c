"""Uploading datasets: what arrives whole becomes a version, anything else leaves nothing."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from trainyard.v1 import dataset_pb2 as pb

from services.core.ids import new_id
from services.datasets.shape_scenes import write_shape_scenes
from tests.builders.family_datasets import image_folder
from tests.integration.api.conftest import Running
from tests.integration.api.failures import refused

SECONDS = 120.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = write_shape_scenes(tmp_path_factory.mktemp("shapes"), seed=0, train_images=6, val_images=3)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return zip_of({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, body in files.items():
            packed.writestr(name, body)
    return buffer.getvalue()


def messages(archive: bytes, **header: object) -> Iterator[pb.CreateDatasetRequest]:
    fields = {"dataset_id": "shapes", "size_bytes": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
    yield pb.CreateDatasetRequest(header=pb.CreateDatasetHeader(**{**fields, **header}))  # type: ignore[arg-type]
    for start in range(0, len(archive), 10_000):
        yield pb.CreateDatasetRequest(chunk=archive[start : start + 10_000])


def leftovers(api: Running) -> list[Path]:
    return [path for path in (api.settings.state_dir / "uploads").glob("*/*") if path.is_file()]


def test_an_upload_becomes_a_version_that_jobs_can_use(api: Running, archive: bytes) -> None:
    dataset = api.datasets.CreateDataset(messages(archive, display_name="Shapes"), timeout=SECONDS).dataset

    assert (dataset.name, dataset.version) == ("projects/default/datasets/shapes", 1)
    assert dataset.display_name == "Shapes"
    assert dataset.format == pb.DATASET_FORMAT_COCO
    assert list(dataset.classes) == ["disc", "box", "triangle"]
    assert dataset.splits["train"].counts["images"] == 6
    assert api.datasets.GetDataset(pb.GetDatasetRequest(name=dataset.name)).dataset == dataset
    assert api.create(dataset=dataset.name).dataset_version_id == dataset.version_id
    assert not leftovers(api)


def test_an_upload_says_what_its_images_are_for_and_how_they_are_split(api: Running) -> None:
    files = {name.removeprefix("train/"): body for name, body in image_folder(train=10, val=0).items()}
    asked = {"family": "images", "format": pb.DATASET_FORMAT_IMAGE_FOLDER, "val_fraction": 0.3, "split_seed": 5}

    dataset = api.datasets.CreateDataset(messages(zip_of(files), **asked), timeout=SECONDS).dataset

    assert (dataset.family, dataset.format) == ("images", pb.DATASET_FORMAT_IMAGE_FOLDER)
    assert {name: split.counts["images"] for name, split in dataset.splits.items()} == {"train": 14, "val": 6}
    assert "6 of 20 images" in dataset.report["notes"][0]
    refusal = refused(lambda: api.create(dataset=dataset.name))
    assert "holds images data, but detection/yolo_v1 needs detection" in refusal.violations["dataset"]


def test_the_same_upload_twice_is_one_version(api: Running, archive: bytes) -> None:
    request_id = new_id()

    first = api.datasets.CreateDataset(messages(archive, request_id=request_id), timeout=SECONDS).dataset
    again = api.datasets.CreateDataset(messages(archive, request_id=request_id), timeout=SECONDS).dataset

    assert again == first


@pytest.mark.parametrize(
    ("header", "field"),
    [
        pytest.param({"size_bytes": 5}, "header.size_bytes", id="more than announced"),
        pytest.param({"size_bytes": 10**6}, "header.size_bytes", id="less than announced"),
        pytest.param({"size_bytes": 0}, "header.size_bytes", id="no size"),
        pytest.param({"sha256": "0" * 64}, "header.sha256", id="another digest"),
        pytest.param({"dataset_id": "Not Valid"}, "header.dataset_id", id="no slug"),
        pytest.param({"family": "faces"}, "family", id="unknown family"),
        pytest.param({"format": pb.DATASET_FORMAT_YOLO, "family": "face"}, "family", id="family of another format"),
        pytest.param({"val_fraction": 1.5}, "header.val_fraction", id="more than everything held out"),
    ],
)
def test_an_upload_that_is_not_what_it_says_is_refused(
    api: Running, archive: bytes, header: dict[str, object], field: str
) -> None:
    refusal = refused(lambda: api.datasets.CreateDataset(messages(archive, **header), timeout=SECONDS))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert field in refusal.violations
    assert not leftovers(api)


def test_an_archive_that_is_no_dataset_is_refused_with_what_to_send(api: Running) -> None:
    refusal = refused(lambda: api.datasets.CreateDataset(messages(b"not an archive"), timeout=SECONDS))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "INVALID_DATASET"
    assert str(api.settings.state_dir) not in refusal.message


def test_a_stream_must_begin_with_the_header(api: Running) -> None:
    chunks = iter([pb.CreateDatasetRequest(chunk=b"x")])

    refusal = refused(lambda: api.datasets.CreateDataset(chunks, timeout=SECONDS))

    assert "header" in refusal.violations


def test_an_upload_larger_than_the_limit_is_refused_before_it_is_sent(api: Running) -> None:
    size = api.settings.api_upload_limit_bytes + 1

    refusal = refused(lambda: api.datasets.CreateDataset(messages(b"x", size_bytes=size), timeout=SECONDS))

    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_upload_that_breaks_off_leaves_nothing(api: Running, archive: bytes) -> None:
    def broken() -> Iterator[pb.CreateDatasetRequest]:
        stream = messages(archive)
        yield next(stream)
        yield next(stream)
        raise ConnectionResetError

    refused(lambda: api.datasets.CreateDataset(broken(), timeout=SECONDS))

    assert api.datasets.ListDatasets(pb.ListDatasetsRequest()).datasets[0].name.endswith("digits")
    assert not leftovers(api)


def test_a_dataset_in_use_cannot_be_deleted(api: Running) -> None:
    api.create()

    refusal = refused(
        lambda: api.datasets.DeleteDataset(pb.DeleteDatasetRequest(name="projects/default/datasets/digits"))
    )

    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
