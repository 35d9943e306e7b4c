"""One run: build the platform, let faults strike, let it come to rest, and ask whether its promises held."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import structlog

from services.core.states import FailureReason, JobState
from services.db import jobs
from services.db.database import Database
from services.db.transitions import NO_PROGRESS_LIMIT
from tests.simulation.control import COLLECT_AGE, REAP_SECONDS, Controller
from tests.simulation.parts import Broker, FlakyDatabase, FlakyStore
from tests.simulation.people import People
from tests.simulation.plan import Fault, Plan
from tests.simulation.worker import LEASE_SECONDS, Worker
from tests.simulation.world import World
from tests.stack.evidence import Evidence
from tests.stack.invariants import violations

LOOK_SECONDS = 20.0
JUMPS_APART_SECONDS = 3 * REAP_SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to; `violations` is empty where every promise held."""

    plan: Plan
    violations: list[str]
    trace: list[str]

    def report(self, *, lines: int = 150) -> str:
        """Return the violations, the last lines of the trace and how to run it again."""
        shown = self.trace[-lines:]
        return "\n".join([*self.violations, "", *shown, "", f"again: {self.plan.command()}"])


def simulate(plan: Plan) -> Outcome:
    """Run a plan from an empty database to rest. Equal plans give equal outcomes."""
    world = World(plan)
    with tempfile.TemporaryDirectory(prefix="simulation-") as directory, world.ids_by_seed(), _quiet():
        path = Path(directory) / "metadata.sqlite3"
        shutil.copy(_template(), path)
        database = FlakyDatabase(path, world)
        try:
            found = _Run(world, database).to_the_end()
        finally:
            database.dispose()
    return Outcome(plan, found, world.trace)


class _Run:
    """Everybody in one world."""

    def __init__(self, world: World, database: FlakyDatabase) -> None:
        plan = world.plan
        self.world = world
        self.database = database
        self.store = FlakyStore(world)
        self.broker = Broker(world)
        self.people = People(world, database)
        self.workers = [Worker(f"worker-{n}", world, database, self.store) for n in range(plan.workers)]
        self.controllers = [
            Controller(f"controller-{n}", world, database, self.store, self.broker) for n in range(plan.controllers)
        ]
        self._is_over = False
        self._next_jump = 0.0
        for worker in self.workers:
            self.broker.listen(worker.ring)

    def to_the_end(self) -> list[str]:
        world, plan = self.world, self.world.plan
        self.people.arrive()
        self._strike_again()
        world.run_until(lambda: False, limit=plan.fault_seconds)
        world.is_calm = True
        world.say("world", "calms down")
        self.people.resume_all()
        world.at(LOOK_SECONDS, self._look)
        limit = plan.fault_seconds + plan.patience_seconds
        if not world.run_until(lambda: self._is_over, limit=limit):
            world.complain("L2: not every job ended")
        # A lease and five seconds after the last fault, no trainer may be left; long after, no garbage.
        last_fault = max(world.time, *(worker.stopped_until for worker in self.workers))
        world.run_until(lambda: False, limit=last_fault + LEASE_SECONDS + 5)
        trainers = [trainer for worker in self.workers for trainer in worker.trainers]
        world.run_until(lambda: False, limit=world.time + 1)
        self._collect_garbage()
        self.people.finish_watching()
        evidence = Evidence(
            submissions=self.people.submissions,
            streams=self.people.streams,
            processes=trainers,
            store=self.store,
            has_trained=True,
        )
        return [*world.broken, *violations(self.database, evidence), *self._miscounted()]

    def _look(self) -> None:
        self._is_over = self.people.all_ended()
        if not self._is_over:
            self.world.at(LOOK_SECONDS, self._look)

    def _collect_garbage(self) -> None:
        self.store.heal()
        # Without ticks in between: two hours of an idle platform show nothing.
        self.world.leap(2 * COLLECT_AGE.total_seconds())
        for _ in range(2):
            self.controllers[0].collect()

    def _strike_again(self) -> None:
        world, rng = self.world, self.world.rng
        if world.is_calm:
            return
        strikes: dict[Fault, Any] = {
            Fault.WORKER_CRASH: lambda: rng.choice(self.workers).crash(),
            Fault.WORKER_STOPPED: lambda: rng.choice(self.workers).stop(rng.choice((10.0, 45.0, 120.0))),
            Fault.DRAIN: lambda: rng.choice(self.workers).drain(),
            Fault.CONTROLLER_STOPPED: lambda: rng.choice(self.controllers).stop(rng.choice((10.0, 60.0, 200.0))),
            Fault.DATABASE_OUTAGE: self._outage,
            Fault.BROKER_OUTAGE: self._broker_outage,
            Fault.CLOCK_JUMPS: self._jump,
            Fault.SPOILED_OBJECTS: self.store.spoil_one,
        }
        # Zombies are what the protocol is about.
        chosen = rng.choice([*sorted(strikes), Fault.WORKER_STOPPED, Fault.WORKER_STOPPED])
        if chosen in world.plan.faults:
            strikes[chosen]()
        world.at(rng.uniform(1, 15), self._strike_again)

    def _outage(self) -> None:
        seconds = self.world.rng.choice((3.0, 20.0, 80.0))
        self.world.say("database", "is away", seconds=seconds)
        self.database.away_until = self.world.time + seconds

    def _broker_outage(self) -> None:
        self.broker.away_until = self.world.time + self.world.rng.choice((10.0, 90.0))

    def _jump(self) -> None:
        # The guard compares two readings, so jumps that cancel out between them are not seen; it says so.
        if self.world.time < self._next_jump:
            return
        self._next_jump = self.world.time + JUMPS_APART_SECONDS
        seconds = self.world.rng.choice((-3600.0, -40.0, 40.0, 3600.0))
        self.world.say("database", "has its clock set", by=seconds)
        self.world.jump(seconds)

    def _miscounted(self) -> Iterator[str]:
        """Find jobs whose attempts were charged wrongly: only a failed trainer counts."""
        with self.database.read() as session:
            for project, job_id in self.people.job_ids:
                job = jobs.get(session, project, job_id)
                attempts = jobs.list_attempts(session, job_id)
                crashes = sum(attempt.failure_reason is FailureReason.CRASH for attempt in attempts)
                expected = {JobState.SUCCEEDED: crashes + 1, JobState.FAILED: crashes}.get(job.state, job.attempt)
                if job.attempt != expected:
                    yield f"L3: job {job_id} {job.state} with {job.attempt} attempts charged, {expected} were to be"
                if job.failure_reason is FailureReason.CRASH and crashes != job.max_attempts:
                    yield f"L3: job {job_id} failed after {crashes} of {job.max_attempts} crashes"
                uncharged = len(attempts) - crashes
                if job.failure_reason is FailureReason.WORKER_LOST and uncharged < NO_PROGRESS_LIMIT:
                    yield f"L3: job {job_id} failed for lack of progress after {uncharged} uncharged attempts"
                yield from self._doubled(job_id)

    def _doubled(self, job_id: str) -> Iterator[str]:
        """Find lines of a trainer that were written twice: within one attempt steps only grow."""
        with self.database.read() as session:
            steps = [event for event in jobs.events_after(session, job_id, 0, 1_000_000) if event.kind == "step"]
        for before, event in itertools.pairwise(steps):
            if before.token == event.token and event.payload["step"] <= before.payload["step"]:
                yield f"L5: job {job_id} was told of step {event.payload['step']} of token {event.token} again"


@cache
def _template() -> Path:
    """Return an empty database of the newest schema, made once a process."""
    directory = Path(tempfile.mkdtemp(prefix="simulation-template-"))
    database = Database(f"sqlite:///{directory / 'template.sqlite3'}")
    database.migrate()
    database.dispose()
    return directory / "template.sqlite3"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the product's log lines out of the way: the trace tells the story."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)
