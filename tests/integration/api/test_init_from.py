"""Asking for a job that starts from other weights: what is stored, what is completed, and what is refused."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from trainyard.v1 import dataset_pb2, job_pb2

from services.core.ids import new_id
from services.core.states import JobState
from services.db import checkpoints, datasets, jobs
from services.db.checkpoints import Checkpoint
from tests.integration.api.conftest import Running
from tests.integration.api.failures import refused
from tests.stack.builders import new_checkpoint, new_dataset, new_model_version
from workers.families.catalog import CATALOG

MOBILE = "classification/mobilenet"
MASKED = "representation/mae"
TUNED = "classification/finetune"
COLOUR = {"data": {"channels": 3}}


@pytest.fixture
def yard(api: Running) -> Running:
    """A server that has images with classes, too."""
    counts = {"train": {"images": 4}, "val": {"images": 2}}
    with api.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="cats", family="classification", counts=counts))
    return api


def ask(yard: Running, recipe: str = TUNED, **fields: Any) -> job_pb2.Job:
    values = {"recipe": recipe, "preset": "tiny", "dataset": "projects/default/datasets/cats"}
    return yard.create(**{**values, **fields})


def trained(
    yard: Running, config: dict[str, Any] | None = None, *, recipe: str = MOBILE
) -> tuple[job_pb2.Job, Checkpoint]:
    """Return a job that left a model version, and a checkpoint that nothing else keeps."""
    fields = {"config": config} if config is not None else {}
    job = ask(yard, recipe, model_id="source", **fields)
    job_id = job.name.rpartition("/")[2]
    with yard.database.write() as session:
        lease = jobs.claim(session, job_id, worker_id="a", ttl_seconds=60)
        checkpoint, newest = [jobs.commit_checkpoint(session, lease, new_checkpoint(step)) for step in (5, 6)]
        spec = jobs.get(session, "default", job_id).spec
        version = new_model_version(config=spec["config"], checkpoint_id=newest.id)
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=version)
    return job, checkpoint


def stored(yard: Running, job: job_pb2.Job) -> jobs.Job:
    with yard.database.read() as session:
        return jobs.get(session, "default", job.name.rpartition("/")[2])


def test_a_model_version_completes_the_config_with_its_network(yard: Running) -> None:
    trained(yard, {**COLOUR, "model": {"name": "small", "widths": [8, 12]}})

    job = ask(yard, init_from="projects/default/models/source/versions/latest")

    assert job.init_from == "projects/default/models/source/versions/1"
    assert job.config["network"]["recipe"] == MOBILE
    assert list(job.config["network"]["model"]["widths"]) == [8, 12]
    assert stored(yard, job).spec["init_from"]["kind"] == "model"
    assert job == yard.jobs.GetJob(job_pb2.GetJobRequest(name=job.name)).job


def test_a_checkpoint_is_kept_for_the_job(yard: Running) -> None:
    source, checkpoint = trained(yard, COLOUR)
    name = f"{source.name}/checkpoints/{checkpoint.id}"

    job = ask(yard, init_from=name)

    assert (job.init_from, stored(yard, job).spec["init_from"]["id"]) == (name, checkpoint.id)
    with yard.database.write() as session:
        lease = jobs.claim(session, stored(yard, job).id, worker_id="a", ttl_seconds=60)
        assert checkpoints.get(session, source.name.rpartition("/")[2], checkpoint.id).step == 5
        assert lease.attempt == 1


@pytest.mark.parametrize("preset", ["tiny", "mae"])
def test_a_masked_autoencoder_becomes_a_vision_transformer(yard: Running, preset: str) -> None:
    trained(yard, recipe=MASKED)
    data = {"image_size": 8, "stored_size": 8, "channels": 1}

    job = ask(yard, preset=preset, init_from="projects/default/models/source/versions/1", config={"data": data})

    assert job.config["network"]["recipe"] == "classification/vit"
    assert dict(job.config["network"]["model"]) | {"patch": 2, "dim": 64, "depth": 3} == dict(
        job.config["network"]["model"]
    )


def test_a_masked_autoencoder_of_other_images_is_refused_with_what_to_set(yard: Running) -> None:
    trained(yard, recipe=MASKED)
    data = {"image_size": 16, "stored_size": 16, "channels": 1}

    refusal = refused(lambda: ask(yard, init_from="projects/default/models/source/versions/1", config={"data": data}))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "data.image_size is 16: set it to 8" in refusal.violations["init_from"]


def test_torchvision_s_weights_say_which_network_they_are_of(yard: Running) -> None:
    job = ask(yard, init_from="torchvision:MobileNet_V3_Small_Weights.IMAGENET1K_V1")

    assert job.config["network"]["model"]["name"] == "mobilenet_v3_small"
    assert job.init_from.startswith("torchvision:")


def test_uploaded_weights_are_pinned_and_kept_for_the_job(yard: Running) -> None:
    with yard.database.write() as session:
        first, _ = datasets.insert(session, new_dataset(dataset_id="weights", family="weights", counts={}))
        newest, _ = datasets.insert(session, new_dataset(dataset_id="weights", family="weights", counts={}))

    job = ask(yard, init_from="projects/default/datasets/weights", config={"network": {"recipe": MOBILE}})

    assert job.init_from == "projects/default/datasets/weights"
    assert stored(yard, job).spec["init_from"] | {"version": 2} == stored(yard, job).spec["init_from"]
    assert stored(yard, job).spec["init_from"]["id"] == newest.id != first.id
    assert job.config["network"]["recipe"] == MOBILE
    request = dataset_pb2.DeleteDatasetRequest(name=job.init_from)
    assert (
        f"is used by job {job.name.rpartition('/')[2]}" in refused(lambda: yard.datasets.DeleteDataset(request)).message
    )
    yard.jobs.CancelJob(job_pb2.CancelJobRequest(name=job.name))
    yard.datasets.DeleteDataset(request)


def test_uploaded_weights_are_of_the_network_that_was_stated_though_it_is_the_default(yard: Running) -> None:
    with yard.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="weights", family="weights", counts={}))
    config = {"network": {"model": {"name": "resnet50"}}}

    job = ask(yard, preset="", init_from="projects/default/datasets/weights", config=config)

    network = stored(yard, job).spec["config"]["network"]
    assert (network["recipe"], network["model"]["name"]) == ("classification/train", "resnet50")


@pytest.mark.parametrize("preset", ["", "full", "tiny"])
def test_uploaded_weights_whose_network_nobody_stated_are_refused_with_what_to_set(yard: Running, preset: str) -> None:
    with yard.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="weights", family="weights", counts={}))

    refusal = refused(lambda: ask(yard, preset=preset, init_from="projects/default/datasets/weights"))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "set network.model" in refusal.violations["init_from"]


def test_the_same_request_finds_its_job_after_its_source_went(yard: Running) -> None:
    source, checkpoint = trained(yard, COLOUR)
    request_id, name = new_id(), f"{source.name}/checkpoints/{checkpoint.id}"
    first = ask(yard, init_from=name, request_id=request_id)
    yard.jobs.CancelJob(job_pb2.CancelJobRequest(name=first.name))
    with yard.database.write() as session:
        assert [row.id for row in checkpoints.mark_deleting(session, [checkpoint.id])] == [checkpoint.id]

    assert ask(yard, init_from=name, request_id=request_id).name == first.name


@pytest.mark.parametrize(
    ("start", "said"),
    [
        pytest.param("", "starts from other weights", id="nothing, where something is needed"),
        pytest.param("source/1", "cannot be started from", id="no full name"),
        pytest.param("projects/default/models/none/versions/3", "no model 'none' version 3", id="no such version"),
        pytest.param("projects/default/models/none/versions/last", "neither a number", id="no number"),
        pytest.param("projects/default/jobs/j/checkpoints/c", "no job 'j'", id="no such job"),
        pytest.param("projects/default/datasets/none", "no dataset 'none'", id="no such dataset"),
        pytest.param("projects/default/datasets/cats", "holds classification data", id="a dataset of images"),
        pytest.param("torchvision:resnet18", "names no weights", id="a network, not weights"),
    ],
)
def test_what_cannot_be_started_from_is_refused_by_name(yard: Running, start: str, said: str) -> None:
    refusal = refused(lambda: ask(yard, init_from=start))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert said in refusal.violations["init_from"]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        pytest.param("models/sources/versions/latest", "did you mean 'source'?", id="a model, misspelt"),
        pytest.param("models/nothing/versions/1", "there is 'source'", id="a model like no other"),
        pytest.param("models/source/versions/9", "its newest version is 1", id="a version of a model that is there"),
        pytest.param("datasets/weight", "did you mean 'weights'?", id="weights, misspelt"),
        pytest.param("datasets/nothing", "there is 'weights'", id="weights like no others: images are not offered"),
        pytest.param("jobs/j/checkpoints/c", "`trainyard checkpoints list`", id="a checkpoint"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(yard: Running, start: str, said: str) -> None:
    trained(yard)
    with yard.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="weights", family="weights", counts={}))

    refusal = refused(lambda: ask(yard, init_from=f"projects/default/{start}"))

    assert said in refusal.violations["init_from"]


def test_what_another_project_has_is_refused_before_anything_is_read(yard: Running) -> None:
    refusal = refused(lambda: ask(yard, init_from="projects/other/models/m/versions/1"))

    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED
    assert "outside project 'default'" in refusal.violations["init_from"]


def test_a_recipe_that_starts_from_nothing_says_so(yard: Running) -> None:
    trained(yard)

    refusal = refused(lambda: ask(yard, MOBILE, init_from="projects/default/models/source/versions/1"))

    assert "classification/mobilenet starts from no other weights" in refusal.violations["init_from"]


def test_a_source_of_another_kind_is_refused_with_those_that_fit(yard: Running) -> None:
    request = {"recipe": "segmentation/fcn", "dataset": "projects/default/datasets/masks"}
    with yard.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="masks", family="segmentation"))
    trained(yard)

    refusal = refused(lambda: yard.create(**request, init_from="projects/default/models/source/versions/1"))

    assert "segmentation/fcn starts from segmentation/fcn" in refusal.violations["init_from"]


def test_every_mistake_is_reported_at_once(yard: Running) -> None:
    refusal = refused(
        lambda: ask(yard, init_from="torchvision:nothing", dataset="projects/default/datasets/dogs", priority=1000)
    )

    assert {"init_from", "dataset", "priority"} <= refusal.violations.keys()


def test_every_source_that_a_config_names_is_a_recipe() -> None:
    for entry in CATALOG.values():
        assert set(entry.load_config().SOURCES) <= {*CATALOG, "torchvision", "weights"}
