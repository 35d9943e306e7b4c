"""The guard at work: what it records, how soon a revocation is felt, and quotas at the door."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image
from trainyard.v1 import dataset_pb2, job_pb2, job_pb2_grpc, model_pb2

from services.core.roles import Role
from services.core.settings import Settings
from services.core.units import human_bytes
from services.db import audit, datasets, projects, tokens
from services.db.audit import AuditLine, Stored
from services.db.database import Database
from services.db.work import Work
from services.identity import trail
from services.identity.trail import Trail
from tests.integration.api.conftest import Running, job_request, server, template  # noqa: F401 - fixtures
from tests.integration.api.failures import refused
from tests.stack.identity import admit, bearer, token_id
from tests.stack.platform import wait_until

CODE = grpc.StatusCode


@pytest.fixture
def api(server: Any) -> Running:  # noqa: F811 - the fixture of the API's tests
    running: Running = server[0]
    return running


def lines(api: Running, count: int = 1) -> list[Stored]:
    """Return the newest lines once there are `count`, the oldest of them first."""

    def read() -> list[Stored]:
        with api.database.read() as session:
            return audit.page(session, page_size=count)

    wait_until(lambda: len(read()) == count, what=f"{count} lines", limit_seconds=120)
    return read()[::-1]


def test_a_change_is_recorded_with_who_made_it_and_what_it_made(api: Running) -> None:
    request = job_request(display_name="private", request_id="r-1")
    job = api.jobs.CreateJob(request, metadata=(("x-request-id", "call-1"),)).job

    (line,) = lines(api)

    assert (line.action, line.outcome) == ("/trainyard.v1.JobService/CreateJob", "OK")
    assert (line.project, line.token_id, line.resource) == ("default", token_id(api.token), job.name)
    assert line.request_id == "call-1"
    assert line.peer.startswith("ipv4:127.0.0.1:")


def test_a_change_that_fails_is_recorded_with_how(api: Running) -> None:
    refused(lambda: api.jobs.CancelJob(job_pb2.CancelJobRequest(name="projects/default/jobs/none")))

    (line,) = lines(api)

    assert (line.action.rpartition("/")[2], line.resource) == ("CancelJob", "projects/default/jobs/none")
    assert line.outcome == "NOT_FOUND"


def test_reads_leave_no_line_but_downloads_do(api: Running) -> None:
    job = api.create()
    list(
        api.jobs.WatchJob(
            job_pb2.WatchJobRequest(name=api.jobs.CancelJob(job_pb2.CancelJobRequest(name=job.name)).job.name)
        )
    )
    api.jobs.GetJob(job_pb2.GetJobRequest(name=job.name))
    request = model_pb2.DownloadArtifactRequest(name=f"{job.name}/artifacts/none")
    refused(lambda: list(api.models.DownloadArtifact(request)))

    assert [line.action.rpartition("/")[2] for line in lines(api, 3)] == ["CreateJob", "CancelJob", "DownloadArtifact"]


def test_refused_calls_are_recorded_and_secrets_are_not(api: Running) -> None:
    viewer = admit(api.database, role=Role.VIEWER)
    with grpc.insecure_channel(api.address) as channel:
        jobs = job_pb2_grpc.JobServiceStub(channel)
        refused(lambda: jobs.ListJobs(job_pb2.ListJobsRequest()))
        refused(lambda: jobs.CreateJob(job_request(), metadata=bearer(viewer)))
        foreign = job_pb2.GetJobRequest(name=f"projects/{viewer}")
        refused(lambda: jobs.GetJob(foreign, metadata=bearer(viewer)))

    found = lines(api, 3)

    assert [line.outcome for line in found] == ["UNAUTHENTICATED", "PERMISSION_DENIED", "PERMISSION_DENIED"]
    assert [line.token_id for line in found] == ["", token_id(viewer), token_id(viewer)]
    assert viewer.rpartition("_")[2] not in repr(found)


def test_a_refused_call_is_recorded_with_what_it_was_aimed_at_and_whose_token_it_showed(api: Running) -> None:
    viewer, leaked, job = admit(api.database, role=Role.VIEWER), admit(api.database), api.create()
    foreign = "projects/other/jobs/01kw0000000000000000000000"
    revoke(api, leaked)
    with grpc.insecure_channel(api.address) as channel:
        jobs = job_pb2_grpc.JobServiceStub(channel)
        for name, token in ((job.name, viewer), (foreign, leaked), (foreign, api.token)):
            request = job_pb2.CancelJobRequest(name=name)
            refused(lambda request=request, token=token: jobs.CancelJob(request, metadata=bearer(token)))

    found = lines(api, 3)

    assert [line.outcome for line in found] == ["PERMISSION_DENIED", "UNAUTHENTICATED", "PERMISSION_DENIED"]
    assert [line.token_id for line in found] == [token_id(token) for token in (viewer, leaked, api.token)]
    assert [line.resource for line in found] == [job.name, foreign, foreign]


def test_a_line_is_stored_with_its_change_or_not_at_all(api: Running) -> None:
    with api.database.write() as session:
        session.connection.exec_driver_sql("ALTER TABLE audit_lines RENAME TO audit_lines_gone")

    refusal = refused(api.create)

    assert refusal.code == CODE.INTERNAL
    assert not api.jobs.ListJobs(job_pb2.ListJobsRequest()).jobs


def revoke(api: Running, token: str) -> None:
    with api.database.write() as session:
        tokens.revoke(session, token_id(token))


def test_a_revocation_is_felt_by_calls_and_by_open_streams(api: Running) -> None:
    token, job = admit(api.database), api.create()
    with grpc.insecure_channel(api.address) as channel:
        jobs = job_pb2_grpc.JobServiceStub(channel)
        stream = jobs.WatchJob(job_pb2.WatchJobRequest(name=job.name), metadata=bearer(token))
        assert next(stream).event.seq == 1

        revoke(api, token)
        ended = refused(lambda: list(stream))
        after = refused(lambda: jobs.GetJob(job_pb2.GetJobRequest(name=job.name), metadata=bearer(token)))

    assert ended.code == after.code == CODE.UNAUTHENTICATED
    assert "while the stream was open" in ended.message
    assert "was revoked" in after.message
    assert api.jobs.GetJob(job_pb2.GetJobRequest(name=job.name)).job.name == job.name


def test_as_many_jobs_wait_as_the_quota_says_and_a_repetition_is_none(api: Running) -> None:
    with api.database.write() as session:
        projects.set_quotas(session, "default", {"max_queued_jobs": 2})
    first = api.create(request_id="one")
    api.create()

    refusal = refused(api.create)
    again = api.create(request_id="one")
    api.jobs.CancelJob(job_pb2.CancelJobRequest(name=first.name))

    assert (refusal.code, refusal.reason) == (CODE.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    assert "has 2 queued jobs and may have no more" in refusal.message
    assert "trainyard admin project set-quota default --queued-jobs" in refusal.message
    assert again.name == first.name
    assert api.create().name


@cache
def archive() -> bytes:
    """Return a YOLO set of one picture, zipped; the same bytes each time, as in a repeated upload."""
    picture, packed = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("data.yaml", "names: [square]\ntrain: images/train\nval: images/val\n")
        for split in ("train", "val"):
            file.writestr(f"images/{split}/a.png", picture.getvalue())
            file.writestr(f"labels/{split}/a.txt", "0 0.5 0.5 0.25 0.25\n")
    return packed.getvalue()


def upload(api: Running, request_id: str = "") -> dataset_pb2.Dataset:
    content = archive()
    header = dataset_pb2.CreateDatasetHeader(dataset_id="squares", size_bytes=len(content), request_id=request_id)
    messages = [dataset_pb2.CreateDatasetRequest(header=header), dataset_pb2.CreateDatasetRequest(chunk=content)]
    return api.datasets.CreateDataset(iter(messages), timeout=60).dataset


def test_a_dataset_that_does_not_fit_leaves_nothing_and_says_how_much_there_is(api: Running) -> None:
    stored = upload(api, request_id="first")
    with api.database.read() as session:
        used = sum(one.size_bytes for one in datasets.page(session, "default", page_size=9))
    held = [info.key for info in api.store.list("")]
    with api.database.write() as session:
        projects.set_quotas(session, "default", {"max_stored_bytes": used + 10})

    too_much = refused(lambda: upload(api))
    with api.database.write() as session:
        projects.set_quotas(session, "default", {"max_stored_bytes": used})
    full, job = refused(lambda: upload(api)), refused(api.create)

    assert {one.code for one in (too_much, full, job)} == {CODE.RESOURCE_EXHAUSTED}
    left = (
        f"stores {human_bytes(used)} of {human_bytes(used + 10)}, and this needs {human_bytes(stored.size_bytes)} more"
    )
    assert left in too_much.message
    assert f"stores {human_bytes(used)} of {human_bytes(used)}; delete datasets, models or" in full.message
    assert upload(api, request_id="first").version_id == stored.version_id
    assert [info.key for info in api.store.list("")] == held
    assert [line.outcome for line in lines(api, 5)][-2:] == ["RESOURCE_EXHAUSTED", "OK"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(Settings(state_dir=tmp_path).resolved_database_url)
    opened.migrate()
    yield opened
    opened.dispose()


def written(database: Database, add: Callable[[Trail], None]) -> list[Stored]:
    async def run() -> None:
        work = Work(database)
        made = Trail(work, clock=Clock())
        add(made)
        await made.close()
        work.close()

    asyncio.run(run())
    with database.read() as session:
        return audit.page(session, page_size=1000)


def test_a_flood_of_refused_calls_is_counted_instead_of_written(database: Database) -> None:
    def flood(made: Trail) -> None:
        for _ in range(10_000):
            made.add(AuditLine(action="a", outcome="UNAUTHENTICATED"))

    found = written(database, flood)

    assert len(found) == trail.BURST_LINES + 1
    assert {line.resource for line in found} == {"", f"{10_000 - int(trail.BURST_LINES)} lines left out"}


def test_lines_wait_for_the_end_of_the_server_at_most(database: Database) -> None:
    found = written(database, lambda made: made.add(AuditLine(action="a")))

    assert [line.action for line in found] == ["a"]
