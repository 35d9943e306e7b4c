"""Asking for jobs: what is stored, what a repetition does, and what a mistake is answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.struct_pb2 import Struct
from trainyard.v1 import job_pb2

from services.core.ids import new_id
from services.db import datasets, jobs
from tests.integration.api.conftest import TIMEOUT, Running, job_request
from tests.integration.api.failures import refused
from tests.stack.builders import new_dataset


def overrides(values: dict[str, object]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def test_a_created_job_is_queued_with_its_whole_config(api: Running) -> None:
    job = api.create(config=overrides({"optim": {"lr": 0.25}}), labels={"team": "vision"}, display_name="First")

    assert job.state == job_pb2.JOB_STATE_QUEUED
    assert job.config["optim"]["lr"] == 0.25
    assert job.config["limits"]["max_steps"] > 0
    assert job.model_id == "detection-yolo-v1"
    assert (job.labels["team"], job.display_name) == ("vision", "First")
    assert job == api.jobs.GetJob(job_pb2.GetJobRequest(name=job.name)).job


def test_the_worker_finds_the_spec_it_was_promised(api: Running) -> None:
    job = api.create(resources=job_pb2.Resources(resource_class=job_pb2.RESOURCE_CLASS_GPU), max_attempts=5)

    with api.database.read() as session:
        stored = jobs.get(session, "default", job.name.rpartition("/")[2])
    assert stored.queue == "train.gpu"
    assert stored.spec["resources"] == {"class": "gpu", "processes": 1}
    assert stored.spec["dataset"] == {"name": job.dataset, "version_id": job.dataset_version_id}
    assert (stored.spec["recipe"], stored.spec["preset"]) == ("detection/yolo_v1", "tiny")
    assert (stored.spec["max_attempts"], stored.spec["init_from"]) == (5, None)


def test_the_same_request_makes_one_job(api: Running) -> None:
    request_id = new_id()

    first = api.create(request_id=request_id)
    again = api.create(request_id=request_id)

    assert again.name == first.name


def test_a_request_id_is_refused_for_another_request(api: Running) -> None:
    request_id = new_id()
    api.create(request_id=request_id)

    refusal = refused(lambda: api.create(request_id=request_id, priority=3))

    assert refusal.code == grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"


def test_a_repetition_finds_its_job_after_the_dataset_went(api: Running) -> None:
    request_id = new_id()
    first = api.create(request_id=request_id)
    api.jobs.CancelJob(job_pb2.CancelJobRequest(name=first.name))
    with api.database.write() as session:
        datasets.delete(session, "default", "digits")

    assert api.create(request_id=request_id).name == first.name


def test_concurrent_repetitions_make_one_job(api: Running) -> None:
    request = job_request(request_id=new_id())

    with ThreadPoolExecutor(16) as threads:
        names = set(threads.map(lambda _: api.jobs.CreateJob(request, timeout=TIMEOUT).job.name, range(64)))

    assert len(names) == 1


def test_concurrent_creates_all_become_jobs(api: Running) -> None:
    with ThreadPoolExecutor(16) as threads:
        names = set(threads.map(lambda _: api.create().name, range(64)))

    listed = api.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=200)).jobs
    assert {job.name for job in listed} == names
    assert len(names) == 64


def test_every_mistake_is_reported_at_once(api: Running) -> None:
    request = job_request(
        dataset="projects/default/datasets/digit",
        config=overrides({"optim": {"lr": -1, "lrr": 1}, "limits": {"max_steps": "many"}, "augmnt": {}}),
        labels={"Not Valid": "x"},
        priority=1000,
        max_attempts=99,
    )

    refusal = refused(lambda: api.jobs.CreateJob(request))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {
        "config.optim.lr",
        "config.optim.lrr",
        "config.limits.max_steps",
        "config.augmnt",
        "dataset",
        "labels['Not Valid']",
        "priority",
        "max_attempts",
    }
    assert "did you mean 'lr'?" in refusal.violations["config.optim.lrr"]
    assert "did you mean 'augment'?" in refusal.violations["config.augmnt"]
    assert "did you mean 'digits'?" in refusal.violations["dataset"]


def test_an_unknown_recipe_is_answered_with_close_ones(api: Running) -> None:
    refusal = refused(lambda: api.create(recipe="detection/yolo"))

    assert "detection/yolo_v1" in refusal.violations["recipe"]


def test_an_unknown_preset_is_answered_with_all_of_them(api: Running) -> None:
    refusal = refused(lambda: api.create(preset="huge"))

    assert "full" in refusal.violations["preset"]
    assert "tiny" in refusal.violations["preset"]


def test_a_dataset_of_another_family_is_refused(api: Running) -> None:
    with api.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="faces", family="face"))

    refusal = refused(lambda: api.create(dataset="projects/default/datasets/faces"))

    assert "face" in refusal.violations["dataset"]


def test_a_dataset_without_training_images_is_refused(api: Running) -> None:
    with api.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="empty", counts={"val": {"images": 3, "boxes": 3}}))

    refusal = refused(lambda: api.create(dataset="projects/default/datasets/empty"))

    assert "train" in refusal.violations["dataset"]


def test_images_without_labels_are_refused_where_classes_are_learned(api: Running) -> None:
    given = {"family": "images", "counts": {"train": {"images": 4}}}
    with api.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="plain", classes=[], **given))
        datasets.insert(session, new_dataset(dataset_id="sorted", **given))
    plain, in_folders = (f"projects/default/datasets/{name}" for name in ("plain", "sorted"))

    refusal = refused(lambda: api.create(recipe="gan/cgan", dataset=plain))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "gan/cgan learns the class of every image" in refusal.violations["dataset"]
    assert api.create(recipe="gan/cgan", dataset=in_folders).dataset == in_folders
    assert api.create(recipe="gan/dcgan", dataset=plain).dataset == plain


def test_a_dataset_that_is_not_there_is_answered_with_those_meant_or_those_there_are(api: Running) -> None:
    near, far = (
        refused(lambda name=name: api.create(dataset=f"projects/default/datasets/{name}"))  # type: ignore[misc]
        for name in ("digit", "segbin")
    )

    assert near.violations["dataset"] == "project 'default' has no dataset 'digit'; did you mean 'digits'?"
    assert far.violations["dataset"] == "project 'default' has no dataset 'segbin'; there is 'digits'"


def test_an_older_dataset_version_can_be_asked_for(api: Running) -> None:
    with api.database.write() as session:
        datasets.insert(session, new_dataset())

    first = api.create(dataset_version=1)
    newest = api.create()

    assert first.dataset_version_id != newest.dataset_version_id
    refusal = refused(lambda: api.create(dataset_version=7))
    assert "no version 7" in refusal.violations["dataset_version"]


def test_a_gpu_in_the_config_needs_a_gpu_worker(api: Running) -> None:
    refusal = refused(lambda: api.create(config=overrides({"runtime": {"device": "cuda"}})))

    assert "GPU" in refusal.violations["config.runtime.device"]


def test_many_mistakes_do_not_outgrow_the_answer(api: Running) -> None:
    config = overrides({f"unknown_{number}": "x" * 200 for number in range(400)})

    refusal = refused(lambda: api.create(config=config))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "more" in refusal.violations[""]
