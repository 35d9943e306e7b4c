"""A platform of real processes for one row: what it stands on, its workers, jobs of the fault recipe, and the check
of the protocol's invariants at its end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import psutil
import sqlalchemy as sa

from services.client.sdk import Trainyard
from services.controller.sweep import Sweep
from services.core.errors import DatabaseUnavailable
from services.core.ids import new_id
from services.core.settings import Settings
from services.core.states import TERMINAL, JobState
from services.datasets.shape_scenes import write_shape_scenes
from services.db import checkpoints, jobs
from services.db import tables as t
from services.db.database import Database
from services.db.job_records import Attempt, Event, Job
from services.db.session import Session
from services.storage.open import open_store
from services.storage.port import ObjectStore
from tests.builders.fault_config import NAME
from tests.chaos import patches
from tests.chaos.row import Stage
from tests.stack import invariants
from tests.stack.data import import_folder
from tests.stack.evidence import Evidence, Stream, Submission
from tests.stack.minio import MinioServer, minio_server
from tests.stack.platform import Stack, control_plane, descendants, settings_of, test_timings
from tests.stack.postgres import PostgresServer, postgres_process
from tests.stack.redis import RedisServer, redis_server
from workers import host

T = TypeVar("T")

PROJECT = "default"
REPLAYED = 10
"""Jobs whose stream is read again from the start at the end of a run."""
PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = 0.02
START_SECONDS = 300.0
"""For processes to come up: no row measures that, and a busy machine may take long over the import of torch."""
LEASE_SECONDS = 1.5
SHORT_LIMITS = {
    "log_every_steps": 1,
    "sample_every_steps": 10**6,
    "evaluate_every_steps": 10**6,
    "checkpoint_every_steps": 5,
}


@dataclass
class Ground:
    """What rows act on."""

    stack: Stack
    settings: Settings
    yard: Trainyard
    redis: RedisServer | None = None
    postgres: PostgresServer | None = None
    minio: MinioServer | None = None
    submissions: list[Submission] = field(default_factory=list)
    """Every job of which the API server said that it is stored."""

    @cached_property
    def database(self) -> Database:
        return Database(self.settings.resolved_database_url)

    @cached_property
    def store(self) -> ObjectStore:
        return open_store(self.settings)

    # Processes

    def start_workers(self, *names: str, **environ: str) -> None:
        """Start workers and return once each has registered and its warm parent has imported torch."""
        for name in names:
            self.start_worker(name, **environ)
        self.wait_for_workers(*names)

    def start_worker(self, name: str, **environ: str) -> None:
        before = self._count(name, "warm_parent_ready")
        self.stack.start(name, "workers", TRAINYARD_WORKER_ID=name, **environ)
        self._readiness[name] = before

    def wait_for_workers(self, *names: str) -> None:
        for name in names:
            until(
                lambda name=name: self._count(name, "warm_parent_ready") > self._readiness[name],
                what=f"worker {name}",
                show=self.log_tail,
                seconds=START_SECONDS,
            )

    @cached_property
    def _readiness(self) -> dict[str, int]:
        return {}

    def kill(self, name: str) -> None:
        process = self.stack.processes[name]
        process.kill()
        process.wait()

    def family(self, name: str) -> list[psutil.Process]:
        return descendants(self.stack.processes[name].pid)

    @contextmanager
    def frozen(self, name: str, *, with_children: bool = False) -> Iterator[None]:
        """Keep a process stopped for the time of the block, never between the first and last word to the database."""
        process = psutil.Process(self.stack.processes[name].pid)
        stopped = [process, *(process.children(recursive=True) if with_children else ())]
        until(lambda: self._stop_outside_transaction(process), what=f"a moment {name} holds no transaction open")
        for one in stopped[1:]:
            one.suspend()
        try:
            yield
        finally:
            for one in stopped:
                try:
                    one.resume()
                except psutil.NoSuchProcess:
                    continue

    def _stop_outside_transaction(self, process: psutil.Process) -> bool:
        process.suspend()
        if self._is_database_free():
            return True
        process.resume()
        time.sleep(0.01)
        return False

    def _is_database_free(self) -> bool:
        """Tell whether nobody keeps a transaction open: a stopped process that does would hold its locks."""
        if self.postgres is None:
            import sqlite3

            connection = sqlite3.connect(self.database.url.database or "", timeout=0.05, isolation_level=None)
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return False
            finally:
                connection.close()
            return True
        open_ones = sa.text("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'")
        with self.database.read() as session:
            return not session.execute(open_ones).scalar_one()

    def _count(self, name: str, word: str) -> int:
        return self.log_text(name).count(f'"{word}"')

    def log_text(self, name: str) -> str:
        path = self.stack.state_dir / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_tail(self) -> str:
        logs = sorted((self.stack.state_dir / "logs").glob("*.log"))
        return "\n".join(f"-- {path.name}\n{path.read_text(errors='replace')[-2500:]}" for path in logs)

    # Jobs

    def submit(self, *, steps: int = 6, every: int = 5, **fields: Any) -> str:
        """Submit a job of the fault recipe and return its id; `faults`, `model`, ... go into its config."""
        config = config_of(steps=steps, every=every, **{k: fields.pop(k) for k in CONFIG_FIELDS if k in fields})
        request_id = new_id()
        job = self.yard.create_job(
            NAME, dataset="shapes", preset="tiny", config=config, request_id=request_id, **fields
        )
        job_id = str(job.name.rpartition("/")[2])
        self.submissions.append(Submission(PROJECT, request_id, job_id))
        return job_id

    def read(self, look: Callable[[Session], T]) -> T:
        """Look into the database, as soon as it answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with self.database.read() as session:
                    return look(session)
            except DatabaseUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def job(self, job_id: str) -> Job:
        return self.read(lambda session: jobs.get(session, PROJECT, job_id))

    def events(self, job_id: str) -> list[Event]:
        return self.read(lambda session: jobs.events_after(session, job_id, 0, 1_000_000))

    def kinds(self, job_id: str) -> list[str]:
        return [event.kind for event in self.events(job_id)]

    def step_ms(self, job_id: str, *, after: int = 0) -> list[float]:
        """Return the step times a job told of, without the first `after` of them."""
        return [event.payload["step_ms"] for event in self.events(job_id) if event.kind == "step"][after:]

    def steps_during(self, job_id: str, act: Callable[[], object]) -> list[float]:
        """Return the times of the steps that a job took while something was done, in milliseconds."""
        before = len(self.step_ms(job_id))
        act()
        return self.step_ms(job_id, after=before)

    def attempts(self, job_id: str) -> list[Attempt]:
        return self.read(lambda session: jobs.list_attempts(session, job_id))

    def checkpoints(self, job_id: str) -> list[checkpoints.Checkpoint]:
        return self.read(lambda session: checkpoints.list_all(session, job_id))

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        return {job_id: self.job(job_id).state for job_id in job_ids}

    def cancel(self, job_id: str) -> None:
        self.yard.cancel_job(job_id, reason="chaos")

    def until_step(self, job_id: str, step: int) -> None:
        until(lambda: self.job(job_id).progress_step >= step, what=f"step {step} of {job_id}", show=self.log_tail)

    def until_state(
        self, job_id: str, *states: JobState, seconds: float = PATIENCE_SECONDS, pause: float = PAUSE_SECONDS
    ) -> Job:
        until(
            lambda: self.job(job_id).state in states,
            what=f"{states}",
            show=self.log_tail,
            seconds=seconds,
            pause=pause,
        )
        return self.job(job_id)

    def until_over(self, job_ids: Sequence[str], *, seconds: float = PATIENCE_SECONDS) -> dict[str, JobState]:
        until(
            lambda: all(state in TERMINAL for state in self.states(job_ids).values()),
            what=f"the end of {len(job_ids)} jobs",
            show=lambda: f"{self.states(job_ids)}\n{self.log_tail()}",
            seconds=seconds,
        )
        return self.states(job_ids)

    def worker_of(self, job_id: str) -> str:
        return self.attempts(job_id)[-1].worker_id

    def child_of(self, job_id: str) -> psutil.Process:
        """Return the trainer of a job's current attempt, once its worker has recorded it."""

        def pid() -> int | None:
            found = self.attempts(job_id)
            return found[-1].pid if found and found[-1].end_time is None else None

        until(pid, what=f"the trainer of {job_id}", show=self.log_tail)
        return psutil.Process(pid() or 0)

    def weights_sha256(self, job_id: str) -> str:
        """Return the digest of the weights of a job's newest checkpoint."""
        newest = max((row for row in self.checkpoints(job_id) if row.state == "committed"), key=lambda row: row.step)
        return str(next(file["sha256"] for file in newest.files if file["name"] == "model.safetensors"))

    def uninterrupted_sha256(self, **fields: Any) -> str:
        """Return the weights of a job like this one that nothing happens to."""
        job_id = self.submit(**fields)
        done = self.until_state(job_id, *TERMINAL)
        assert done.state is JobState.SUCCEEDED, f"{done.failure_message}\n{done.failure_log}"
        return self.weights_sha256(job_id)

    # The end

    def settle(self) -> None:
        """Cancel what still runs, and wait until nothing does."""
        live = self.read(lambda session: [row.id for row in session.execute(sa.select(t.jobs.c.id).where(t.IS_LIVE))])
        for job_id in live:
            self.cancel(job_id)
        self.until_over(live)

    def violations(self) -> list[str]:
        """Return what the invariant checker says about everything that happened here, after collecting garbage."""
        wait_at_most(LEASE_SECONDS + 5, lambda: not self._trainers())
        Sweep(self.database, self.store, age=timedelta(0)).tick()
        evidence = Evidence(
            submissions=self.submissions,
            streams=[self._replayed(one.job_id) for one in self.submissions[:REPLAYED]],
            processes=self._trainers(),
            store=self.store,
            has_trained=True,
        )
        return invariants.violations(self.database, evidence)

    def _replayed(self, job_id: str) -> Stream:
        """Read a job's stream again from its start, as a client does."""
        kinds = {event.seq: event.kind for event in self.events(job_id)}
        return Stream(job_id, [(event.seq, kinds.get(event.seq, "")) for event in self.yard.watch(job_id)])

    def _trainers(self) -> set[tuple[str, int]]:
        """Return (job id, token) of every process that stands in an attempt's directory."""
        homes = self.stack.state_dir / "workers"
        found = set()
        for pid in host.processes_inside(homes):
            try:
                name = Path(os.readlink(f"/proc/{pid}/cwd")).name
            except OSError:
                continue
            job_id, _, token = name.rpartition("-")
            if token.isdigit():
                found.add((job_id, int(token)))
        return found


CONFIG_FIELDS = ("faults", "model", "data", "pace_ms", "golden_ms", "runtime", "limits", "clip")


def config_of(*, steps: int, every: int, **sections: Any) -> dict[str, Any]:
    limits = {**SHORT_LIMITS, "max_steps": steps, "checkpoint_every_steps": every, **sections.pop("limits", {})}
    runtime = {"precision": "fp32", "channels_last": "off", "seed": 7, **sections.pop("runtime", {})}
    return {"limits": limits, "runtime": runtime, **sections}


class Servers(TypedDict, total=False):
    """Which parts of a platform are servers, and not files."""

    database: str
    broker: str
    store: str


@contextmanager
def ground(
    stage: Stage,
    *,
    database: str = "sqlite",
    broker: str = "files",
    store: str = "local",
    workers: Sequence[str] = ("a", "b"),
    chaos: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    has_controller: bool = True,
) -> Iterator[Ground]:
    """Run a platform on servers of its own for the time of the block, then check its invariants into the stage."""
    with ExitStack() as parts:
        number = len(list(stage.directory.iterdir())) if stage.directory.exists() else 0
        home = stage.directory / f"ground-{number}"
        home.mkdir(parents=True)
        full = {**test_timings(), **patches.environment(*chaos), "OMP_NUM_THREADS": "1"}
        full |= {"TRAINYARD_WORKER_THREADS": "1", "TRAINYARD_WORKER_QUEUES": "train.cpu"}
        servers: dict[str, Any] = {}
        if database == "postgres":
            servers["postgres"] = parts.enter_context(postgres_process(home / "postgres", in_memory=True))
            full["TRAINYARD_DATABASE_URL"] = servers["postgres"].url
        if broker == "redis":
            servers["redis"] = parts.enter_context(redis_server(home / "redis"))
            full["TRAINYARD_BROKER_URL"] = servers["redis"].url
        if store == "minio":
            servers["minio"] = parts.enter_context(minio_server(home / "minio"))
            full |= minio_environment(servers["minio"])
        full |= environ or {}
        state_dir = home / "state"
        stack = parts.enter_context(control_plane(state_dir, full, has_controller=has_controller))
        yard = parts.enter_context(stack.client())
        found = Ground(stack, settings_of(stack.environ, state_dir), yard, **servers)
        parts.callback(found.database.dispose)
        write_shape_scenes(home / "shapes", seed=0, train_images=4, val_images=2)
        import_folder(yard, home / "shapes", dataset_id="shapes")
        found.start_workers(*workers)
        yield found
        found.settle()
        stage.violations += found.violations()


def minio_environment(server: MinioServer, *, endpoint: str | None = None) -> dict[str, str]:
    return {
        "TRAINYARD_OBJECT_STORE_URL": f"s3://{endpoint or server.endpoint}/trainyard",
        "TRAINYARD_S3_ACCESS_KEY": server.access_key,
        "TRAINYARD_S3_SECRET_KEY": server.secret_key,
        "TRAINYARD_S3_SECURE": "false",
    }


def until(
    is_true: Callable[[], object],
    *,
    what: str,
    show: Callable[[], str] = str,
    seconds: float = PATIENCE_SECONDS,
    pause: float = PAUSE_SECONDS,
) -> float:
    """Poll until a condition holds and return how long it took; fail with what was awaited and what `show` says."""
    begin = time.monotonic()
    while not is_true():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}\n{show()}")
        time.sleep(pause)
    return time.monotonic() - begin


def wait_at_most(seconds: float, is_true: Callable[[], object]) -> None:
    """Poll until a condition holds or the time is over."""
    with suppress(TimeoutError):
        until(is_true, what="", seconds=seconds)
