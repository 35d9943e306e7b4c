from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from trainyard.v1 import dataset_pb2, job_pb2, model_pb2

from services.core.errors import PermissionDenied
from services.identity.access import ACCESS
from services.identity.scope import confine, resource_of

CREATE_JOB = ACCESS["/trainyard.v1.JobService/CreateJob"]
GET_JOB = ACCESS["/trainyard.v1.JobService/GetJob"]
CREATE_DATASET = ACCESS["/trainyard.v1.DatasetService/CreateDataset"]
DOWNLOAD = ACCESS["/trainyard.v1.ModelService/DownloadArtifact"]


def test_an_empty_parent_becomes_the_tokens_project() -> None:
    request = confine(job_pb2.CreateJobRequest(dataset="projects/red/datasets/d"), CREATE_JOB, "red")

    assert request.parent == "projects/red"


@pytest.mark.parametrize("name", ["projects/red/jobs/1", "projects/red", ""])
def test_names_of_the_project_pass(name: str) -> None:
    assert confine(job_pb2.GetJobRequest(name=name), GET_JOB, "red").name == name


@pytest.mark.parametrize(
    "name",
    [
        "projects/blue/jobs/1",
        "projects/redder/jobs/1",
        "projects/re/jobs/1",
        "projects/red-/jobs/1",
        "projects//jobs/1",
        "projects/./red/jobs/1",
        "projects/../red/jobs/1",
        "projects/RED/jobs/1",
        "projects/red\u200b/jobs/1",
        "projects/blue%2F../red/jobs/1",
        "projects/-/jobs/1",
        "projects/*/jobs/1",
        "projects/",
    ],
)
def test_names_of_anything_else_do_not(name: str) -> None:
    with pytest.raises(PermissionDenied) as refusal:
        confine(job_pb2.GetJobRequest(name=name), GET_JOB, "red")

    assert [violation.field for violation in refusal.value.violations] == ["name"]


def test_every_field_is_looked_at() -> None:
    request = job_pb2.CreateJobRequest(parent="projects/red", dataset="projects/blue/datasets/d")

    with pytest.raises(PermissionDenied, match="dataset"):
        confine(request, CREATE_JOB, "red")


async def stream(*messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


def at_once(awaitable: Awaitable[Any]) -> Any:
    """Return the result of something that never waits; unit tests have no event loop."""
    with pytest.raises(StopIteration) as done:
        next(iter(awaitable.__await__()))
    return done.value.value


def test_messages_of_streams_are_looked_at_as_they_come() -> None:
    own = dataset_pb2.CreateDatasetRequest(header=dataset_pb2.CreateDatasetHeader(dataset_id="d"))
    chunk = dataset_pb2.CreateDatasetRequest(chunk=b"x")
    foreign = dataset_pb2.CreateDatasetRequest(header=dataset_pb2.CreateDatasetHeader(parent="projects/blue"))

    seen = confine(stream(own, chunk, foreign), CREATE_DATASET, "red")

    assert at_once(anext(seen)).header.parent == "projects/red"
    assert at_once(anext(seen)).chunk == b"x"
    with pytest.raises(PermissionDenied):
        next(iter(anext(seen).__await__()))


def test_the_record_names_the_resource() -> None:
    request = model_pb2.DownloadArtifactRequest(name="projects/red/jobs/1/artifacts/2")

    assert resource_of(request, DOWNLOAD) == "projects/red/jobs/1/artifacts/2"
    assert resource_of(stream(request), CREATE_DATASET) == ""
