"""The SDK against a real server: streams that survive it, transfers that are whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trainyard.v1 import job_pb2

from services.client.errors import ApiError, TransferFailed
from services.client.names import short
from services.client.pack import as_archive
from services.client.sdk import Trainyard
from services.client.transfer import ignore_progress
from services.core.states import JobState
from services.db import artifacts, jobs
from services.db.artifacts import NewArtifact
from services.db.events import append_event
from services.db.leases import Lease, claim
from services.db.transitions import finish
from services.storage import layout
from services.storage.manifest import upload_directory
from services.storage.open import open_store
from tests.integration.client.conftest import Run, Server
from tests.stack.builders import new_checkpoint


@pytest.fixture(scope="module")
def archive(coco_folder: Path) -> Iterator[Path]:
    with as_archive(coco_folder, on_progress=ignore_progress) as path:
        yield path


@pytest.fixture
def job(client: Trainyard, archive: Path) -> job_pb2.Job:
    client.create_dataset(archive, dataset_id="squares")
    return client.create_job("detection/yolo_v1", dataset="squares", preset="tiny")


class Worker:
    """Stands for a worker: claims a job and writes its events."""

    def __init__(self, server: Server, job: job_pb2.Job) -> None:
        self.server = server
        with server.database.write() as session:
            self.lease: Lease = claim(session, short(job.name), worker_id="w1", ttl_seconds=60)

    def log(self, text: str) -> None:
        with self.server.database.write() as session:
            append_event(session, self.lease, "log", {"level": "info", "text": text})


class Watching:
    """Collects a watched job's events on a thread."""

    def __init__(self, client: Trainyard, job: job_pb2.Job) -> None:
        self.events: list[job_pb2.JobEvent] = []
        self.retries: list[int] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(client, job.name))
        self._thread.start()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(condition, timeout=15), self.events

    def texts(self) -> list[str]:
        return [event.log.text for event in self.events if event.WhichOneof("payload") == "log"]

    def join(self) -> None:
        self._thread.join(15)
        assert not self._thread.is_alive()

    def _run(self, client: Trainyard, name: str) -> None:
        for event in client.watch(name, on_reconnect=self._retried):
            with self._news:
                self.events.append(event)
                self._news.notify_all()

    def _retried(self, retry: int) -> None:
        with self._news:
            self.retries.append(retry)
            self._news.notify_all()


def test_a_watch_outlives_a_restart_of_the_server_without_gap_or_copy(
    server: Server, client: Trainyard, job: job_pb2.Job
) -> None:
    worker = Worker(server, job)
    watching = Watching(client, job)
    worker.log("one")
    watching.wait_for(lambda: watching.texts() == ["one"])

    server.stop()
    worker.log("two")
    watching.wait_for(lambda: len(watching.retries) > 0)
    worker.log("three")
    server.start()
    watching.wait_for(lambda: len(watching.texts()) == 3)
    worker.log("four")
    with server.database.write() as session:
        finish(session, worker.lease, state=JobState.SUCCEEDED)
    watching.join()

    assert watching.texts() == ["one", "two", "three", "four"]
    assert [event.seq for event in watching.events] == list(range(1, len(watching.events) + 1))
    assert watching.events[-1].state_change.state == job_pb2.JOB_STATE_SUCCEEDED


def test_an_upload_says_how_far_it_is_and_ends_at_the_whole(client: Trainyard, archive: Path) -> None:
    seen: list[tuple[int, int]] = []

    dataset = client.create_dataset(
        archive, dataset_id="progress", on_progress=lambda done, total: seen.append((done, total))
    )

    assert dataset.version == 1
    assert seen[-1] == (archive.stat().st_size, archive.stat().st_size)


def test_an_upload_repeated_under_one_request_id_makes_one_version(client: Trainyard, archive: Path) -> None:
    first = client.create_dataset(archive, dataset_id="again", request_id="r1")
    second = client.create_dataset(archive, dataset_id="again", request_id="r1")

    assert first.version_id == second.version_id


def test_a_download_is_the_stored_bytes(server: Server, client: Trainyard, job: job_pb2.Job, tmp_path: Path) -> None:
    name = _store_artifact(server, job, b"picture" * 300_000)

    done = client.download(name, tmp_path)

    assert done.path.read_bytes() == b"picture" * 300_000
    assert [each.file_name for each in client.list_artifacts(job.name)] == [done.path.name]


def test_every_artifact_of_a_job_is_fetched_a_repeated_one_once(
    run: Run, server: Server, client: Trainyard, job: job_pb2.Job, tmp_path: Path
) -> None:
    worker = Worker(server, job)
    for step in (1, 2):
        _store_artifact(server, job, b"%d" % step, name=f"samples-{step}.png", worker=worker)

    fetched = run("jobs", "artifacts", job.name, "--download", str(tmp_path / "all"))
    _store_artifact(server, job, b"3", name="samples-2.png", folder="again/", worker=worker)
    again = run("jobs", "artifacts", job.name, "--download", str(tmp_path / "newest"))

    assert fetched.stdout.splitlines()[-1] == f"downloaded 2 files into {tmp_path / 'all'}"
    assert sorted(path.read_bytes() for path in (tmp_path / "all").iterdir()) == [b"1", b"2"]
    assert again.stdout.splitlines()[-1] == f"downloaded 2 files into {tmp_path / 'newest'}, the newest version of each"
    assert sorted(path.read_bytes() for path in (tmp_path / "newest").iterdir()) == [b"1", b"3"]


def test_a_folder_is_packed_and_one_family_is_listed(client: Trainyard, coco_folder: Path) -> None:
    made = client.create_dataset(str(coco_folder), dataset_id="packed", display_name="Squares of mine")

    assert made.display_name == "Squares of mine"
    assert "packed" in {short(each.name) for each in client.list_datasets(family="detection")}
    assert [*client.list_datasets(family="classification")] == []


def test_a_checkpoint_is_fetched_by_its_short_name_and_as_the_best(
    server: Server, client: Trainyard, job: job_pb2.Job, tmp_path: Path
) -> None:
    worker, content = Worker(server, job), b"weights of step five"
    prefix = layout.checkpoint_prefix("default", short(job.name), 5, 1)
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "weights.bin").write_bytes(content)
    manifest = upload_directory(open_store(server.settings), prefix, tmp_path / "stored")
    with server.database.write() as session:
        files = [{"name": name, **entry._asdict()} for name, entry in manifest.files.items()]
        new = new_checkpoint(5, prefix=prefix, manifest_sha256=manifest.sha256(), metric=0.5, files=files)
        made = jobs.commit_checkpoint(session, worker.lease, new)

    by_id, best = (
        client.download(f"{short(job.name)}/{last}", str(tmp_path / last), file="weights.bin")
        for last in (made.id, "best")
    )

    assert by_id.path.read_bytes() == best.path.read_bytes() == content
    with pytest.raises(ApiError) as refused:
        client.create_download_link(f"{short(job.name)}/best")
    assert refused.value.code == "UNIMPLEMENTED"


def test_a_request_that_is_too_large_is_explained(client: Trainyard) -> None:
    with pytest.raises(ApiError) as refused:
        client.predict("digits", [bytes(17 * 2**20)])

    assert refused.value.reason == "REQUEST_TOO_LARGE"
    assert refused.value.message.startswith("the request has 17.0 MiB, and one call takes 16: send fewer")


def test_bytes_spoiled_in_the_store_are_never_taken_for_the_file(
    server: Server, client: Trainyard, job: job_pb2.Job, tmp_path: Path
) -> None:
    name = _store_artifact(server, job, b"picture")
    paths = [path for path in server.settings.state_dir.rglob("samples.png") if short(job.name) in str(path)]
    (stored,) = [path for path in paths if path.read_bytes() == b"picture"]
    stored.write_bytes(b"pictuRe")

    with pytest.raises((TransferFailed, ApiError)):
        client.download(name, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_pages_are_walked_to_the_end(client: Trainyard, job: job_pb2.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.sdk.PAGE_SIZE", 2)
    more = [client.create_job(job.recipe, dataset=job.dataset, preset="tiny").name for _ in range(4)]

    names = [each.name for each in client.list_jobs()]

    assert names[:4] == more[::-1]
    assert len(set(names)) == len(names)
    assert job.name in names


def test_an_error_carries_code_reason_and_fields(client: Trainyard) -> None:
    with pytest.raises(ApiError) as refused:
        client.create_job("detection/none", dataset="none")

    assert refused.value.code in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert refused.value.reason
    assert refused.value.request_id


def _store_artifact(
    server: Server,
    job: job_pb2.Job,
    content: bytes,
    *,
    name: str = "samples.png",
    folder: str = "",
    worker: Worker | None = None,
) -> str:
    worker = worker or Worker(server, job)
    key = layout.artifact("default", short(job.name), f"{folder}{name}")
    info = open_store(server.settings).put(key, content, size_bytes=len(content), content_type="image/png")
    new = NewArtifact(name=name, kind="picture", key=key, size_bytes=info.size_bytes, sha256=info.sha256, step=1)
    with server.database.write() as session:
        stored = artifacts.add(session, worker.lease, new)
    return f"{job.name}/artifacts/{stored.id}"
