"""A database, a store and real workers over one state directory, with neither API nor controller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from services.broker.app import make_app
from services.broker.sender import RUN_ATTEMPT, Sender
from services.core.ids import new_id
from services.core.settings import Settings, Timings
from services.core.states import JobState
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from services.datasets.shape_scenes import write_shape_scenes
from services.db import checkpoints, datasets, jobs
from services.db.database import Database
from services.db.job_records import Attempt, Event, Job
from services.storage import layout
from services.storage.manifest import upload_directory
from services.storage.open import open_store
from services.storage.port import ObjectStore
from tests.stack import builders
from tests.stack.platform import test_timings
from workers.families.catalog import CATALOG

RECIPE = "detection/yolo_v1"
PATIENCE_SECONDS = 120.0


def canonical_scenes(root: Path) -> Path:
    """Write a small detection set in canonical form."""
    folder = write_shape_scenes(root / "coco", seed=3, train_images=32, val_images=8)
    out = root / "canonical"
    out.mkdir()
    import_folder(folder, out, source_format=None, limits=ImportLimits())
    return out


def tiny_config(**limits: Any) -> dict[str, Any]:
    """Return a complete config of seconds, or of as many steps as asked for."""
    config = CATALOG[RECIPE].load_config().preset("tiny").model_dump(mode="json")
    config["data"]["batch_size"] = 8
    config["limits"] |= {"max_steps": 12, "checkpoint_every_steps": 4, "evaluate_every_steps": 10**6} | limits
    config["schedule"]["warmup_steps"] = 1
    config["limits"] |= {"sample_every_steps": 10**6, "log_every_steps": 1}
    config["runtime"] |= {"precision": "fp32", "channels_last": "off"}
    return config


@dataclass
class Yard:
    """What tests act on."""

    state_dir: Path
    dataset_dir: Path
    timings: dict[str, str] = field(default_factory=test_timings)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    """Ids of jobs."""

    @cached_property
    def settings(self) -> Settings:
        timings = {name.rpartition("__")[2].lower(): float(value) for name, value in self.timings.items()}
        return Settings(state_dir=self.state_dir, timings=Timings(**timings))

    @cached_property
    def database(self) -> Database:
        return Database(self.settings.resolved_database_url)

    @cached_property
    def store(self) -> ObjectStore:
        return open_store(self.settings)

    @cached_property
    def sender(self) -> Sender:
        return Sender(make_app(self.settings))

    @cached_property
    def dataset(self) -> datasets.DatasetVersion:
        return self.add_dataset(self.dataset_dir, dataset_id="scenes")

    def add_dataset(self, directory: Path, *, dataset_id: str) -> datasets.DatasetVersion:
        """Store a data set in canonical form."""
        new = builders.new_dataset(dataset_id=dataset_id)
        prefix = layout.dataset_prefix(new.project, new.dataset_id, new.id)
        manifest = upload_directory(self.store, prefix, directory)
        stored = builders.new_dataset(
            id=new.id,
            dataset_id=dataset_id,
            manifest_key=layout.manifest(prefix),
            manifest_sha256=manifest.sha256(),
            size_bytes=manifest.size_bytes,
        )
        with self.database.write() as session:
            return datasets.insert(session, stored)[0]

    def submit(self, *, config: dict[str, Any] | None = None, processes: int = 1, **changes: Any) -> Job:
        """Store a job and ring for it."""
        config = tiny_config() if config is None else config
        spec = {"recipe": RECIPE, "config": config, "resources": {"class": "cpu", "processes": processes}}
        values: dict[str, Any] = {"dataset_version_id": self.dataset.id, "recipe": RECIPE, "spec": spec}
        new = builders.new_job(**values | changes)
        with self.database.write() as session:
            job = jobs.insert(session, new)[0]
        self.submitted.append(job.id)
        self.ring(job.id)
        return job

    def ring(self, job_id: str) -> None:
        self.sender.send(RUN_ATTEMPT, "train.cpu", job_id)

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return jobs.get(session, "default", job_id)

    def events(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            return jobs.events_after(session, job_id, 0, 10_000)

    def kinds(self, job_id: str) -> list[str]:
        return [event.kind for event in self.events(job_id)]

    def checkpoints(self, job_id: str) -> list[checkpoints.Checkpoint]:
        with self.database.read() as session:
            return checkpoints.list_all(session, job_id)

    def attempts(self, job_id: str) -> list[Attempt]:
        with self.database.read() as session:
            return jobs.list_attempts(session, job_id)

    def child_pid(self, job_id: str) -> int | None:
        attempts = self.attempts(job_id)
        return attempts[-1].pid if attempts else None

    def child(self, job_id: str) -> psutil.Process:
        """Return the trainer of a job's newest attempt, as soon as its worker has told of it."""
        until(lambda: self.child_pid(job_id) is not None, what="the attempt's pid", show=self.log_text)
        return psutil.Process(self.child_pid(job_id))

    def until_state(self, job_id: str, *states: JobState) -> Job:
        until(lambda: self.job(job_id).state in states, what=f"state {states}", show=self.log_text)
        return self.job(job_id)

    def until_step(self, job_id: str, step: int) -> None:
        until(lambda: self.job(job_id).progress_step >= step, what=f"step {step}", show=self.log_text)

    def cancel(self, job_id: str) -> None:
        with self.database.write() as session:
            jobs.cancel(session, "default", job_id, "test")

    def start_worker(self, name: str = "w1", **environ: str) -> subprocess.Popen[bytes]:
        """Start a real worker process; it consumes once it is up."""
        full = os.environ | self.timings | {"TRAINYARD_STATE_DIR": str(self.state_dir), "TRAINYARD_WORKER_ID": name}
        full |= {"TRAINYARD_WORKER_QUEUES": "train.cpu", "TRAINYARD_WORKER_THREADS": "1"}
        with (self.state_dir / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers"], env=full | environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def log_text(self) -> str:
        return "\n".join(path.read_text()[-8000:] for path in sorted(self.state_dir.glob("*.log")))

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.sender.close()
        self.database.dispose()


def until(is_true: Callable[[], object], *, what: str, show: Callable[[], str] = str) -> None:
    """Poll until a condition holds, or fail with what was awaited and what `show` says."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_true():
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE_SECONDS} s for {what}\n{show()}")
        time.sleep(0.02)


@contextmanager
def open_yard(state_dir: Path, dataset_dir: Path, **timings: str) -> Iterator[Yard]:
    state_dir.mkdir(parents=True, exist_ok=True)
    yard = Yard(state_dir, dataset_dir)
    yard.timings |= {f"TRAINYARD_TIMINGS__{name.upper()}": value for name, value in timings.items()}
    yard.database.migrate()
    try:
        yield yard
    finally:
        yard.close()


def fresh_id() -> str:
    return new_id()
