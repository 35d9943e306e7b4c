"""Rows about the broker and the database: what is stored counts, and a message is only a doorbell."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis as redis_client

from services.broker.app import make_app
from services.broker.sender import Sender
from services.client.errors import ApiError
from services.controller.dispatcher import Dispatcher
from services.controller.reaping import Reaping
from services.core.errors import DatabaseUnavailable
from services.core.states import TERMINAL, AttemptState, JobState
from services.db.database import Database
from services.db.job_records import Event
from tests.chaos.ground import Ground, ground, until
from tests.chaos.measure import added_share, percentile
from tests.chaos.proxy import proxy_to
from tests.chaos.row import Registry, Result, Stage
from tests.stack.postgres import PostgresServer, postgres_process

REGISTRY = Registry()
LONG = 10**5
RECONNECT = 30.0
"""Celery's longest back-off to a broker that is away."""


@REGISTRY.row(
    6,
    "Redis SIGKILL, 5 s away, back empty; tasks running and queued",
    "0 lost; step rate of running jobs dips < 5 %; all queued started within 35 s of its return; workers alive",
    needs=("redis",),
)
def broker_killed(stage: Stage) -> Result:
    count = stage.count(20, short=4)
    seconds = 1 if stage.is_short else 5
    with ground(stage, broker="redis") as here:
        running = _running_jobs(here)
        before = here.steps_during(running[1], lambda: time.sleep(seconds))
        assert here.redis is not None
        here.redis.process.stop(signal.SIGKILL)
        # Twenty submissions take a processor's time with or without Redis, and so do jobs in the place of a cancelled one.
        queued = [here.submit(steps=2) for _ in range(count)]
        away = here.steps_during(running[1], lambda: time.sleep(seconds))
        here.cancel(running[0])
        here.redis.process.start()
        back = time.monotonic()
        here.until_over(queued, seconds=120)
        done_seconds = time.monotonic() - back
        lost = sum(state is not JobState.SUCCEEDED for state in here.states(queued).values())
        is_alive = all(here.stack.processes[name].poll() is None for name in "ab")
        restarts = len(here.attempts(running[1])) - 1
    # A step that is longer by a share x is a rate that is lower by x / (1 + x).
    added = added_share(away, before)
    dip = added / (1 + added)
    value = {
        "lost": lost,
        "step_rate_dip": round(dip, 4),
        "queued_done_seconds": round(done_seconds, 1),
        "workers_alive": is_alive,
    }
    return Result(value, lost == 0 and dip < 0.05 and done_seconds <= 35 and is_alive and restarts == 0)


@REGISTRY.row(
    7,
    "Redis FLUSHALL, CLIENT KILL, and stopped for a while",
    "0 lost, 0 double runs; Submit p99 < 200 ms meanwhile",
    needs=("redis",),
)
def broker_disturbed(stage: Stage) -> Result:
    count = stage.count(12, short=3)
    found: list[str] = []
    latencies: list[float] = []
    with ground(stage, broker="redis") as here:
        assert here.redis is not None

        def submit(steps: int = 2) -> None:
            begin = time.monotonic()
            found.append(here.submit(steps=steps))
            latencies.append(time.monotonic() - begin)

        submit()
        latencies.clear()
        with redis_client.Redis(port=here.redis.port) as admin:
            for number in range(count):
                submit()
                if number % 2:
                    admin.flushall()
                else:
                    admin.client_kill_filter(skipme=True, _type="normal")
        here.until_over(found, seconds=120)
        here_pid = here.redis.process.pid
        _signal(here_pid, signal.SIGSTOP)
        end = time.monotonic() + (2 if stage.is_short else 10)
        while time.monotonic() < end:
            submit()
            time.sleep(0.3)
        _signal(here_pid, signal.SIGCONT)
        here.until_over(found, seconds=120)
        lost = sum(state is not JobState.SUCCEEDED for state in here.states(found).values())
        double = sum(len(here.attempts(job_id)) - 1 for job_id in found)
    p99 = percentile(latencies, 0.99)
    value = {"jobs": len(found), "lost": lost, "double_runs": double, "submit_p99_ms": round(1000 * p99, 1)}
    return Result(value, lost == 0 and double == 0 and p99 < 0.2)


@REGISTRY.row(
    8,
    "Redis stopped for long (30 s here: ten minutes at the ratio of the test timings)",
    "100 % of Submits accepted; cancel works; running jobs finish; queued ones start after its return",
    needs=("redis",),
)
def broker_away(stage: Stage) -> Result:
    seconds = 3 if stage.is_short else 30
    accepted = cancelled = asked = 0
    with ground(stage, broker="redis") as here:
        assert here.redis is not None
        running = here.submit(steps=40 * seconds // 2, pace_ms=25)
        here.until_step(running, 2)
        here.redis.process.stop()
        end = time.monotonic() + seconds
        queued = []
        while time.monotonic() < end:
            asked += 1
            queued.append(here.submit(steps=2))
            accepted += 1
            if asked % 5 == 0:
                here.cancel(queued.pop())
                cancelled += 1
            time.sleep(0.5)
        ended = here.until_state(running, *TERMINAL).state
        # A worker looks for the next job itself when one is done; so some of these may have run meanwhile.
        here.redis.process.start()
        back = time.monotonic()
        here.until_over(queued, seconds=120)
        started = time.monotonic() - back
        lost = sum(state is not JobState.SUCCEEDED for state in here.states(queued).values())
    value = {
        "away_seconds": seconds,
        "submits_accepted": f"{accepted}/{asked}",
        "cancelled": cancelled,
        "running_job": ended.value,
        "queued_lost": lost,
        "queued_done_seconds": round(started, 1),
    }
    passed = accepted == asked and ended is JobState.SUCCEEDED and lost == 0
    return Result(value, passed and started <= RECONNECT + 35)


@REGISTRY.row(
    9,
    "Postgres restarted with -m immediate, away for 5 s and for 15 s",
    "API UNAVAILABLE with RetryInfo; 0 trainers killed; 0 acknowledged submits lost; 0 leases reaped; writes within "
    "5 s of its return",
    needs=("postgres",),
)
def database_restarted(stage: Stage) -> Result:
    outages = (2,) if stage.is_short else (5, 15)
    acknowledged: list[str] = []
    resumed, refusals = [], set()
    with ground(stage, database="postgres") as here:
        assert here.postgres is not None
        running = [here.submit(steps=LONG, every=50, pace_ms=20) for _ in range(2)]
        for job_id in running:
            here.until_step(job_id, 3)
        trainers = [here.child_of(job_id) for job_id in running]
        for seconds in outages:
            acknowledged += [here.submit(steps=2) for _ in range(3)]
            here.postgres.stop(signal.SIGQUIT)
            begin = time.monotonic()
            while time.monotonic() - begin < seconds:
                refusals.add(_refusal(here, acknowledged))
                time.sleep(0.5)
            here.postgres.start()
            resumed.append(_seconds_until_writes(here, acknowledged))
            time.sleep(2 * 1.5)
        alive = sum(trainer.is_running() for trainer in trainers)
        lost_leases = sum(one.state is AttemptState.LOST for job_id in running for one in here.attempts(job_id))
        for job_id in running:
            here.cancel(job_id)
        here.until_over(acknowledged, seconds=120)
        done = sum(state is JobState.SUCCEEDED for state in here.states(acknowledged).values())
    value = {
        "outages_seconds": outages,
        "api_said": sorted(refusals - {""}),
        "trainers_alive": f"{alive}/{len(trainers)}",
        "leases_reaped": lost_leases,
        "acknowledged": len(acknowledged),
        "acknowledged_lost": len(acknowledged) - done,
        "writes_after_return_seconds": [round(one, 2) for one in resumed],
    }
    passed = alive == 2 and lost_leases == 0 and done == len(acknowledged) and max(resumed) <= 5
    return Result(value, passed and refusals - {""} == {"UNAVAILABLE"})


@REGISTRY.row(
    10,
    "the connection breaks after COMMIT is sent, 200 times",
    "0 duplicates, 0 falsely fenced attempts, 0 acknowledged jobs lost",
    needs=("postgres",),
)
def ambiguous_commits(stage: Stage) -> Result:
    wanted = stage.count(200, short=10)
    rng = random.Random(7)
    with _postgres(stage) as server, proxy_to(("127.0.0.1", server.port)) as proxy:
        url = server.url.replace(str(server.port), str(proxy.port))
        with ground(stage, environ={"TRAINYARD_DATABASE_URL": url}) as here:
            proxy.watch = lambda data: b"COMMIT" in data and rng.random() < 0.25
            acknowledged, refused = [], 0
            while proxy.cuts < wanted:
                try:
                    acknowledged.append(here.submit(steps=12, every=3, pace_ms=5))
                except ApiError as err:
                    refused += err.code != "UNAVAILABLE"
                if len(acknowledged) % 4 == 0:
                    _patiently(lambda: here.until_over(acknowledged[-4:]))
            cuts, proxy.watch = proxy.cuts, None
            here.until_over(acknowledged, seconds=120)
            states = here.states(acknowledged)
            # A heartbeat that meets its own attempt's end says that the lease is lost, too; nothing is stopped by it.
            fenced = {(one["job"], one["token"]) for name in "ab" for one in _abandoned(here.log_text(name))}
            ran_out = {(job_id, token) for job_id in acknowledged for token in _reaped_tokens(here.events(job_id))}
            names = {here.job(job_id).id for job_id in acknowledged}
            total = len(list(here.yard.list_jobs()))
    value = {
        "cuts": cuts,
        "jobs": len(acknowledged),
        "duplicates": len(acknowledged) - len(names),
        "stored_but_unacknowledged": total - len(acknowledged),
        "leases_that_ran_out": len(ran_out),
        "falsely_fenced": len(fenced - ran_out),
        "not_succeeded": sum(state is not JobState.SUCCEEDED for state in states.values()),
        "wrong_errors": refused,
    }
    passed = cuts >= wanted and value["duplicates"] == 0 and value["falsely_fenced"] == 0 and refused == 0
    return Result(value, passed and value["not_succeeded"] == 0)


@REGISTRY.row(
    32,
    "three controllers, and three dispatchers and reapers that know nothing of each other",
    "0 violations; each job starts once while no lease is lost; every lost one is taken back once",
)
def many_controllers(stage: Stage) -> Result:
    count = stage.count(40, short=4)
    with ground(stage) as here:
        for name in ("controller-2", "controller-3"):
            here.stack.start(name, "services.controller")
        with _loose_controllers(here, 3):
            found = [here.submit(steps=4) for _ in range(count)]
            here.until_over(found, seconds=180)
            extra = sum(len(here.attempts(job_id)) for job_id in found) - count
            victims = [here.submit(steps=60, pace_ms=10) for _ in range(4)]
            for job_id in victims[:2]:
                here.until_step(job_id, 5)
            name = here.worker_of(victims[0])
            here.kill(name)
            here.stack.processes["controller"].kill()
            here.start_workers(name)
            here.until_over(victims, seconds=120)
        taken = [sum(kind == "reaped" for kind in here.kinds(job_id)) for job_id in victims]
        done = sum(state is JobState.SUCCEEDED for state in here.states([*found, *victims]).values())
    value = {"jobs": count, "extra_starts": extra, "taken_back": taken, "succeeded": f"{done}/{count + len(victims)}"}
    return Result(value, extra == 0 and max(taken) <= 1 and sum(taken) >= 1 and done == count + len(victims))


@contextmanager
def _loose_controllers(here: Ground, number: int) -> Iterator[None]:
    """Run dispatchers and reapers in this process, without any election between them."""
    ended = threading.Event()
    errors: list[str] = []
    databases = [Database(here.settings.resolved_database_url) for _ in range(number)]

    def work(database: Database) -> None:
        timings = here.settings.timings
        sender = Sender(make_app(here.settings))
        try:
            reaping = Reaping(database, timings)
            dispatcher = Dispatcher(
                database,
                sender,
                redispatch_after_seconds=timings.redispatch_after,
                preempt_after_seconds=timings.preempt_after,
            )
            while not ended.wait(0.1):
                with suppress(DatabaseUnavailable):
                    reaping.tick()
                    dispatcher.tick_jobs()
        except Exception as err:
            errors.append(repr(err))
        finally:
            sender.close()

    threads = [threading.Thread(target=work, args=(one,)) for one in databases]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        for database in databases:
            database.dispose()
    assert not errors, errors


def _abandoned(log: str) -> Iterator[dict[str, Any]]:
    """Yield the log lines of attempts that a worker gave up as taken away."""
    for line in log.splitlines():
        if '"verdict": "abandon"' in line:
            yield json.loads(line)


def _reaped_tokens(events: Sequence[Event]) -> list[int]:
    return [event.payload["lost_token"] for event in events if event.kind == "reaped"]


@contextmanager
def _postgres(stage: Stage) -> Iterator[PostgresServer]:
    with postgres_process(stage.directory / "postgres", in_memory=True) as server:
        yield server


def _running_jobs(here: Ground) -> list[str]:
    """Start two long jobs at a pace."""
    running = [here.submit(steps=LONG, every=50, pace_ms=25) for _ in range(2)]
    for job_id in running:
        here.until_step(job_id, 40)
    return running


def _refusal(here: Ground, acknowledged: list[str]) -> str:
    try:
        acknowledged.append(here.submit(steps=2))
    except ApiError as err:
        return err.code
    return ""


def _seconds_until_writes(here: Ground, acknowledged: list[str]) -> float:
    begin = time.monotonic()
    until(lambda: _refusal(here, acknowledged) == "", what="a write after the database is back", show=here.log_tail)
    return time.monotonic() - begin


def _patiently(act: object) -> None:
    """Do something that reads the database until no connection breaks under it."""
    while True:
        try:
            assert callable(act)
            act()
        except DatabaseUnavailable:
            continue
        return


def _signal(pid: int, number: signal.Signals) -> None:
    import os

    os.kill(pid, number)
