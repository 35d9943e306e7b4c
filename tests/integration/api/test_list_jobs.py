"""Pages of jobs."""

from __future__ import annotations

import grpc
import pytest
from trainyard.v1 import job_pb2, job_pb2_grpc

from tests.integration.api.conftest import Running
from tests.integration.api.failures import refused
from tests.stack.identity import admit, bearer


def test_pages_show_every_job_once_newest_first(api: Running) -> None:
    names = [api.create().name for _ in range(7)]
    pages = []
    token = ""

    while True:
        response = api.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=3, page_token=token))
        pages.append([job.name for job in response.jobs])
        token = response.next_page_token
        if not token:
            break

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [name for page in pages for name in page] == names[::-1]


def test_a_job_created_between_two_pages_shifts_nothing(api: Running) -> None:
    names = [api.create().name for _ in range(4)]
    first = api.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=2))

    api.create()
    second = api.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=2, page_token=first.next_page_token))

    assert [job.name for job in [*first.jobs, *second.jobs]] == names[::-1]


def test_only_jobs_in_the_wanted_states_are_listed(api: Running) -> None:
    kept, cancelled = api.create(), api.create()
    api.jobs.CancelJob(job_pb2.CancelJobRequest(name=cancelled.name))

    listed = api.jobs.ListJobs(job_pb2.ListJobsRequest(states=[job_pb2.JOB_STATE_QUEUED])).jobs

    assert [job.name for job in listed] == [kept.name]


@pytest.mark.parametrize("states", [[99], [0], [99, job_pb2.JOB_STATE_FAILED]])
def test_a_state_that_is_not_known_is_refused_rather_than_answered_with_other_jobs(
    api: Running, states: list[job_pb2.JobState]
) -> None:
    api.create()

    refusal = refused(lambda: api.jobs.ListJobs(job_pb2.ListJobsRequest(states=states)))

    assert "ask for JOB_STATE_QUEUED, " in refusal.violations["states"]


def test_a_token_of_another_list_is_refused(api: Running) -> None:
    for _ in range(2):
        api.create()
    token = api.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=1)).next_page_token
    other = job_pb2.ListJobsRequest(page_size=1, page_token=token, recipe="detection/ssd")

    refusal = refused(lambda: api.jobs.ListJobs(other))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "page_token" in refusal.violations


def test_another_project_sees_nothing(api: Running) -> None:
    job = api.create()
    other = {"metadata": bearer(admit(api.database, "other"))}

    with grpc.insecure_channel(api.address) as channel:
        jobs = job_pb2_grpc.JobServiceStub(channel)
        listed = jobs.ListJobs(job_pb2.ListJobsRequest(), **other).jobs
        request = job_pb2.GetJobRequest(name=job.name.replace("default", "other"))
        refusal = refused(lambda: jobs.GetJob(request, **other))

    assert not listed
    assert refusal.code == grpc.StatusCode.NOT_FOUND
