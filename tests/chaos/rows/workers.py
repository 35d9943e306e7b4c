"""Rows about workers and machines that die, sleep, drain or live by another clock."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from services.broker.app import make_app
from services.broker.sender import RUN_ATTEMPT, Sender
from services.core.states import TERMINAL, AttemptState, JobState
from services.db.job_records import Event
from services.up.probe import grpc_serves
from tests.chaos import kill_worker
from tests.chaos.ground import LEASE_SECONDS, Ground, Servers, ground, until
from tests.chaos.measure import loses_little, redone_steps
from tests.chaos.row import Registry, Result, Stage
from tests.stack.install import find_program
from tests.stack.platform import seconds_until_gone

REGISTRY = Registry()
HOUR = 3600
SERVERS = ("postgres", "redis", "minio")
ON_SERVERS: Servers = {"database": "postgres", "broker": "redis", "store": "minio"}
"""Of rows that stop a process for good: it may hold the lock of a file that others on its machine wait for."""


@REGISTRY.row(
    1,
    "worker SIGKILL at a random step",
    "trainer gone within 2 s; claimed again within lease + 1 s; redone steps at most one checkpoint interval and those "
    "of a checkpoint on its way, half of one at most; weights' sha256 as uninterrupted, 20/20",
)
def worker_killed(stage: Stage) -> Result:
    seeds = range(stage.count(20, short=1))
    report = kill_worker.run(stage.directory, seeds=seeds, say=stage.say)
    stage.violations += report.pop("violations")
    value = {name: report[name] for name in report if name not in ("kills", "uninterrupted_sha256")}
    return Result(value, kill_worker.holds(report), seeds)


@REGISTRY.row(
    3,
    "machine lost: the worker with all its processes stops for ever",
    "as row 1, with no help from the host: claimed elsewhere within lease + 1 s, the same weights",
    needs=SERVERS,
)
def machine_lost(stage: Stage) -> Result:
    seeds = range(stage.count(3, short=1))
    reclaimed, equal = [], 0
    with ground(stage, **ON_SERVERS) as here:
        expected = here.uninterrupted_sha256(steps=80, pace_ms=10)
        for seed in seeds:
            job_id = here.submit(steps=80, pace_ms=10)
            here.until_step(job_id, stage.rng("machine", seed).randrange(8, 60))
            lost = here.worker_of(job_id)
            with here.frozen(lost, with_children=True):
                stopped = time.monotonic()
                until(lambda job_id=job_id: len(here.attempts(job_id)) > 1, what="another claim", show=here.log_tail)
                reclaimed.append(time.monotonic() - stopped)
                here.until_state(job_id, JobState.SUCCEEDED)
                # A lost machine does not come back: what is left of it ends without another word.
                for one in here.family(lost):
                    one.kill()
                here.kill(lost)
            equal += here.weights_sha256(job_id) == expected
            here.start_workers(lost)
    value = {"reclaimed_seconds_max": round(max(reclaimed), 3), "equal_weights": f"{equal}/{len(seeds)}"}
    return Result(value, equal == len(seeds) and max(reclaimed) <= LEASE_SECONDS + 1, seeds)


@REGISTRY.row(
    4,
    "zombie: a worker sleeps through its leases and wakes",
    "0 stale writes accepted in 50; at least 1 refused; the zombie's trainers dead within 5 s of waking",
    needs=SERVERS,
)
def zombie(stage: Stage) -> Result:
    count = stage.count(50, short=2)
    slots = min(5, count)
    rounds = -(-count // slots)
    accepted = refused = 0
    ends: list[float] = []
    with ground(stage, environ={"TRAINYARD_WORKER_SLOTS": str(slots)}, **ON_SERVERS) as here:
        for _ in range(rounds):
            found = [here.submit(steps=10**5, every=10, pace_ms=40) for _ in range(2 * slots)]
            for job_id in found:
                here.until_step(job_id, 3)
            victim = here.worker_of(found[0])
            held = [job_id for job_id in found if here.worker_of(job_id) == victim]
            tokens = {job_id: here.job(job_id).token for job_id in held}
            children = [here.child_of(job_id) for job_id in held]
            others = set(found) - set(held)
            for job_id in others:
                here.cancel(job_id)
            lost_before = here.log_text(victim).count('"lease_lost"')
            with here.frozen(victim):
                until(
                    lambda t=tokens: all(here.job(j).token > t[j] for j in t),
                    what="every lease to go",
                    show=here.log_tail,
                )
            ends.append(seconds_until_gone(children, limit_seconds=10))
            until(lambda v=victim, t=tokens: _is_swept(here, v, t), what="the zombie to let go", show=here.log_tail)
            refused += here.log_text(victim).count('"lease_lost"') - lost_before
            accepted += sum(_stale_writes(here.events(job_id), token) for job_id, token in tokens.items())
            here.settle()
    value = {
        "zombies": rounds * slots,
        "stale_writes": accepted,
        "refused": refused,
        "trainer_gone_seconds_max": round(max(ends), 2),
    }
    return Result(value, accepted == 0 and refused >= 1 and max(ends) <= 5, range(rounds))


def _is_swept(here: Ground, worker: str, tokens: dict[str, int]) -> bool:
    attempts = here.stack.state_dir / "workers" / worker / "attempts"
    return not any((attempts / f"{job_id}-{token}").exists() for job_id, token in tokens.items())


def _stale_writes(events: list[Event], token: int) -> int:
    """Count what was written under a token after the job had a higher one."""
    raised = next((event.seq for event in events if event.token > token), None)
    return sum(raised is not None and event.seq > raised and event.token <= token for event in events)


@REGISTRY.row(5, "the same message ten times to three workers", "100 jobs, 100 starts, 0 extra")
def duplicates(stage: Stage) -> Result:
    count = stage.count(100, short=4)
    with ground(stage, workers=("a", "b", "c")) as here:
        sender = Sender(make_app(here.settings))
        found = []
        for _ in range(count):
            job_id = here.submit(steps=1)
            for _ in range(10):
                sender.send(RUN_ATTEMPT, "train.cpu", job_id)
            found.append(job_id)
        here.until_over(found, seconds=240)
        starts = [len(here.attempts(job_id)) for job_id in found]
        done = sum(here.job(job_id).state is JobState.SUCCEEDED for job_id in found)
        sender.close()
    value = {"jobs": count, "starts": sum(starts), "extra": sum(starts) - count, "succeeded": done}
    return Result(value, sum(starts) == count and done == count)


@REGISTRY.row(
    18,
    "worker drains on SIGTERM",
    "20 times: exits 0 within the drain budget; redone steps 0; attempt unchanged",
)
def drained(stage: Stage) -> Result:
    count = stage.count(20, short=1)
    names = [f"d{number}" for number in range(min(4, count))]
    exits, redone, attempts, codes = [], [], [], []
    reaped = 0
    with ground(stage, workers=names) as here:
        for _ in range(-(-count // len(names))):
            found = [here.submit(steps=10**5, every=10**5, pace_ms=20) for _ in names]
            for job_id in found:
                here.until_step(job_id, 5)
            tokens = {job_id: here.job(job_id).token for job_id in found}
            begin = time.monotonic()
            for name in names:
                here.stack.processes[name].send_signal(signal.SIGTERM)
            for name in names:
                codes.append(here.stack.processes[name].wait(60))
                exits.append(time.monotonic() - begin)
            attempts += [here.job(job_id).attempt for job_id in found]
            here.start_workers(*names)
            for job_id in found:
                until(
                    lambda j=job_id, t=tokens: here.job(j).token > t[j] + 1, what="another attempt", show=here.log_tail
                )
                last = here.job(job_id).progress_step
                here.until_step(job_id, last + 1)
                redone.append(redone_steps(here.events(job_id), lost_token=tokens[job_id]))
                reaped += here.kinds(job_id).count("reaped")
            here.settle()
    value = {
        "drains": len(exits),
        "leases_that_ran_out": reaped,
        "exit_seconds_max": round(max(exits), 2),
        "exit_codes": sorted(set(codes)),
        "redone_steps_max": max(redone),
        "attempts_charged": sorted(set(attempts)),
    }
    passed = max(exits) <= 120 and set(codes) == {0} and max(redone) == 0 and set(attempts) == {0}
    return Result(value, passed, range(len(exits)))


@REGISTRY.row(
    19,
    "SIGTERM, and SIGKILL before the checkpoint is saved",
    "as row 1: redone steps at most one checkpoint interval and half of one on its way, the same weights",
)
def killed_while_draining(stage: Stage) -> Result:
    seeds = range(stage.count(3, short=1))
    interval, equal, redone = 10, 0, []
    with ground(stage) as here:
        expected = here.uninterrupted_sha256(steps=60, every=interval, pace_ms=20)
        for seed in seeds:
            job_id = here.submit(steps=60, every=interval, pace_ms=20)
            here.until_step(job_id, stage.rng("pod", seed).randrange(12, 50))
            name, token = here.worker_of(job_id), here.job(job_id).token
            here.stack.processes[name].send_signal(signal.SIGTERM)
            time.sleep(stage.rng("grace", seed).random() * 0.03)
            here.kill(name)
            here.until_state(job_id, *TERMINAL)
            redone.append(redone_steps(here.events(job_id), lost_token=token))
            equal += here.weights_sha256(job_id) == expected
            here.start_workers(name)
    value = {"redone_steps": redone, "interval_steps": interval, "equal_weights": f"{equal}/{len(seeds)}"}
    is_little = all(loses_little(steps, interval=interval) for steps in redone)
    return Result(value, is_little and equal == len(seeds), seeds)


@REGISTRY.row(
    20,
    "clocks jump by an hour, forth and back: of a worker's machine, then of the database's",
    "0 violations; 0 leases of live workers reaped",
    needs=("postgres",),
)
def clocks_jump(stage: Stage) -> Result:
    """The worker's clock by libfaketime. The database's by a function of its name before the built-in one."""
    fake = _libfaketime()
    shift = stage.directory / "shift"
    shift.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(fake),
        "FAKETIME_TIMESTAMP_FILE": str(shift),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
    with ground(stage, database="postgres", workers=()) as here:
        _give_database_a_clock(here)
        here.start_worker("a", **faked)
        here.start_worker("b")
        here.wait_for_workers("a", "b")
        found = [here.submit(steps=10**5, every=20, pace_ms=20) for _ in range(2)]
        for job_id in found:
            here.until_step(job_id, 5)
        for jump in (f"+{HOUR}\n", f"-{HOUR}\n", "+0\n"):
            shift.write_text(jump)
            _train_on(here, found, steps=30)
        worker_losses = _losses(here, found)
        for offset in (HOUR, 0, -HOUR, 0):
            _shift_database_clock(here, offset)
            _train_on(here, found, steps=60)
        database_losses = _losses(here, found) - worker_losses
    value = {"reaped_after_worker_jumps": worker_losses, "reaped_after_database_jumps": database_losses}
    return Result(value, worker_losses == 0 and database_losses == 0)


def _give_database_a_clock(here: Ground) -> None:
    """Put a clock that can be shifted before the built-in one, and have everybody connect anew to find it."""
    assert here.postgres is not None
    here.postgres.execute("CREATE SCHEMA shifted")
    here.postgres.execute("CREATE TABLE shifted.clock AS SELECT interval '0' AS shift")
    here.postgres.execute(
        "CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
        "'SELECT pg_catalog.clock_timestamp() + shift FROM shifted.clock'"
    )
    here.postgres.execute("ALTER ROLE trainyard SET search_path = shifted, pg_catalog, public")
    here.database.dispose()
    for name, module in (("controller", "services.controller"), ("api", "services.api")):
        here.stack.processes[name].terminate()
        here.stack.processes[name].wait(30)
        here.stack.start(name, module)
    until(grpc_serves(here.stack.address), what="the API server", show=here.log_tail)


def _shift_database_clock(here: Ground, seconds: int) -> None:
    assert here.postgres is not None
    here.postgres.execute(f"UPDATE shifted.clock SET shift = interval '{seconds} s'")


def _train_on(here: Ground, found: list[str], *, steps: int) -> None:
    for job_id in found:
        here.until_step(job_id, here.job(job_id).progress_step + steps)


def _losses(here: Ground, found: list[str]) -> int:
    lost = {AttemptState.LOST, AttemptState.REQUEUED}
    return sum(attempt.state in lost for job_id in found for attempt in here.attempts(job_id))


def _libfaketime() -> Path:
    program = find_program("faketime", package="faketime")
    said = subprocess.run([program, "now", "env"], capture_output=True, text=True, check=True).stdout
    line = next(line for line in said.splitlines() if line.startswith("LD_PRELOAD="))
    return Path(line.partition("=")[2].split(":")[-1])
