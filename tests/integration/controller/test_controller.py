"""The controller against a real database and a broker of files."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.broker.app import make_app
from services.broker.sender import BUILD_ARCHIVE, RUN_ATTEMPT, Sender
from services.controller.compose import Controller
from services.controller.dispatcher import Dispatcher
from services.controller.loop import Loop
from services.controller.waker import LONGEST_REST_SECONDS, Waker
from services.core.errors import BrokerUnavailable, DatabaseUnavailable
from services.core.settings import Settings
from services.core.states import JobState
from services.db import deployments, jobs, projects
from services.db.database import Database
from services.db.deployments import NewDeployment
from services.storage.port import ObjectStore
from tests.stack.builders import new_model_version, queued_job, sha256


def messages(settings: Settings) -> list[tuple[str, str]]:
    """Return (task, argument) of every message that waits in the broker."""
    found = []
    for path in sorted(Path(settings.resolved_broker_url.removeprefix("files://")).glob("*.msg")):
        document = json.loads(path.read_bytes())
        found.append((document["headers"]["task"], json.loads(document["headers"]["argsrepr"].replace("'", '"'))[0]))
    return found


def eventually(check: Callable[[], bool], *, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        threading.Event().wait(0.01)
    return False


@contextmanager
def running(controller: Controller) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=controller.run, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def dispatcher(settings: Settings, database: Database, *, redispatch_after_seconds: float = 60.0) -> Dispatcher:
    sender = Sender(make_app(settings))
    return Dispatcher(database, sender, redispatch_after_seconds=redispatch_after_seconds, preempt_after_seconds=600)


def test_a_queued_job_gets_one_message(settings: Settings, database: Database) -> None:
    job = queued_job(database)
    ringing = dispatcher(settings, database)

    ringing.tick_jobs()
    ringing.tick_jobs()

    assert messages(settings) == [(RUN_ATTEMPT, job.id)]


def test_a_message_that_may_be_lost_is_sent_again(settings: Settings, database: Database) -> None:
    job = queued_job(database)
    ringing = dispatcher(settings, database, redispatch_after_seconds=-1)

    ringing.tick_jobs()
    ringing.tick_jobs()

    assert messages(settings) == [(RUN_ATTEMPT, job.id)] * 2


def test_a_broker_that_is_away_loses_no_job(settings: Settings, database: Database) -> None:
    job = queued_job(database)
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"})

    with pytest.raises(BrokerUnavailable):
        dispatcher(away, database, redispatch_after_seconds=-1).tick_jobs()
    dispatcher(settings, database, redispatch_after_seconds=-1).tick_jobs()

    assert messages(settings) == [(RUN_ATTEMPT, job.id)]


def test_a_loop_goes_on_after_faults_of_any_kind() -> None:
    faults: list[Exception] = [BrokerUnavailable(), RuntimeError("unforeseen")]
    done = threading.Event()

    def tick() -> None:
        if faults:
            raise faults.pop()
        done.set()

    loop = Loop("test", tick, interval_seconds=0.01)
    loop.start()
    loop.lead(True)

    assert done.wait(10)
    loop.stop(timeout_seconds=10)


def test_a_loop_does_not_ask_again_at_every_wake_for_what_is_away() -> None:
    ticks: list[int] = []
    ticked = threading.Event()

    def tick() -> None:
        ticks.append(1)
        ticked.set()
        raise BrokerUnavailable

    loop = Loop("test", tick, interval_seconds=600)
    loop.start()
    loop.lead(True)
    assert ticked.wait(10)
    for _ in range(20):
        loop.wake()
        time.sleep(0.005)
    loop.stop(timeout_seconds=10)

    assert len(ticks) == 1


class Rests(threading.Event):
    """Notes for how long somebody rests, passes no time, and is set after so many."""

    def __init__(self, act: Callable[[int], None], count: int) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._act = act
        self._count = count

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seconds.append(timeout)
        self._act(len(self.seconds))
        if len(self.seconds) == self._count:
            self.set()
        return self.is_set()


def test_the_waker_looks_less_often_while_every_look_finds_what_cannot_be_sent_yet(
    settings: Settings, database: Database
) -> None:
    queued_job(database)
    idle = Loop("idle", lambda: None, interval_seconds=600)
    waker = Waker(database, jobs=idle, archives=idle)

    def act(rests: int) -> None:
        if rests == 6:
            dispatcher(settings, database).tick_jobs()
        elif rests > 7:
            queued_job(database)
        else:
            touch(database, f"project-{rests}")

    waker._stopping = rests = Rests(act, count=9)
    waker._run()

    longest = LONGEST_REST_SECONDS
    assert rests.seconds == [0.04, 0.08, 0.16, longest, longest, longest, 0.02, 0.02, 0.04]


def test_a_waker_whose_database_is_away_says_so_once_and_tells_of_its_return(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Loop("idle", lambda: None, interval_seconds=600)
    waker = Waker(database, jobs=idle, archives=idle)
    away = iter([True] * 5)

    def look() -> bool:
        if next(away, False):
            raise DatabaseUnavailable
        return False

    monkeypatch.setattr(waker, "_look", look)
    waker._stopping = Rests(lambda rests: None, count=12)

    with capture_logs() as logs:
        waker._run()

    assert [line["event"] for line in logs] == ["waker_waits", "waker_goes_on"]


def test_a_loop_whose_database_is_away_says_so_once_and_tells_of_its_return() -> None:
    away, ticks = iter([True] * 5), 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if next(away, False):
            raise DatabaseUnavailable

    loop = Loop("test", tick, interval_seconds=0.001)
    with capture_logs() as logs:
        loop.start()
        loop.lead(True)
        assert eventually(lambda: ticks > 7)
        loop.stop(timeout_seconds=10)

    assert [(line["event"], line["loop"]) for line in logs] == [("tick_postponed", "test"), ("ticks_again", "test")]


def touch(database: Database, project_id: str) -> None:
    """Commit something that is nothing to the dispatcher."""
    with database.write() as session:
        projects.insert(session, project_id)


def test_a_loop_that_does_not_lead_does_nothing() -> None:
    ticks: list[int] = []
    loop = Loop("test", lambda: ticks.append(1), interval_seconds=0.01)

    loop.start()
    loop.wake()
    loop.stop(timeout_seconds=10)

    assert ticks == []


def test_a_commit_wakes_the_dispatcher_long_before_its_interval(
    settings: Settings, database: Database, store: ObjectStore
) -> None:
    with running(Controller(settings, database, store)):
        assert eventually(lambda: Path(f"{database.url.database}.controller.lock").exists())
        other = Database(settings.resolved_database_url)
        begin = time.monotonic()
        job = queued_job(other)
        assert eventually(lambda: bool(messages(settings)))
        waited = time.monotonic() - begin
        other.dispose()

    assert messages(settings) == [(RUN_ATTEMPT, job.id)]
    assert waited < settings.timings.dispatch_interval / 2


def test_a_deployment_gets_its_archive_built(settings: Settings, database: Database) -> None:
    job = queued_job(database)
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="worker-1", ttl_seconds=60)
        version = new_model_version()
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=version)
        new = NewDeployment(
            project="default",
            deployment_id="digits",
            request_id="r",
            request_sha256=sha256("r"),
            model_version_id=version.id,
            target="cpu-t1",
        )
        deployment, _ = deployments.insert(session, new)

    dispatcher(settings, database).tick_archives()

    assert messages(settings) == [(BUILD_ARCHIVE, deployment.archive.id)]


def test_an_expired_lease_is_taken_back_and_sent_again(
    settings: Settings, database: Database, store: ObjectStore
) -> None:
    job = queued_job(database)
    with database.write() as session:
        jobs.claim(session, job.id, worker_id="dead", ttl_seconds=-1)

    def is_queued() -> bool:
        with database.read() as session:
            return jobs.get(session, "default", job.id).state is JobState.QUEUED

    with running(Controller(settings, database, store)):
        assert eventually(is_queued)
        assert eventually(lambda: bool(messages(settings)))


def test_a_controller_waits_until_the_leader_is_gone(
    settings: Settings, database: Database, store: ObjectStore
) -> None:
    leader = database.leadership("controller")
    assert leader.acquire()
    with running(Controller(settings, database, store)):
        job = queued_job(database)
        assert not eventually(lambda: bool(messages(settings)), seconds=1.0)

        leader.release()

        assert eventually(lambda: messages(settings) == [(RUN_ATTEMPT, job.id)])
