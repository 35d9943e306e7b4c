"""A worker in virtual time: it does what `workers/` does, in the same order, through the same store functions.

Its threads (lease, recorder, uploader, supervisor) become parts of one beat, in random order. It may die
between any two writes, or stand still for longer than its lease and then go on as if nothing had been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from services.core.errors import (
    DatabaseUnavailable,
    IntegrityError,
    JobNotFound,
    JobNotRunnable,
    LeaseHeld,
    LeaseLost,
    PreconditionFailed,
    StoreUnavailable,
)
from services.core.ids import new_id
from services.core.states import AttemptState, Desired, FailureReason, JobState
from services.db import checkpoints, jobs, workers
from services.db.jobs import Failure, Job, Lease, NewCheckpoint, NewModelVersion
from services.storage import layout
from services.storage.manifest import FileEntry, Manifest, read_manifest
from tests.simulation.parts import FlakyDatabase, FlakyStore
from tests.simulation.plan import Fault
from tests.simulation.world import Crashed, World
from tests.stack.virtual import VirtualDatabase

LEASE_SECONDS = 30.0
BEAT_SECONDS = 7.0
HEARTBEAT_SECONDS = 25.0
STEPS_A_BEAT = 10
CHECKPOINT_EVERY = 20
NO_CONTACT_SECONDS = 900.0
QUEUES = ("train.cpu",)
CRASH = Failure(FailureReason.CRASH, "the trainer crashed")
AWAY = (DatabaseUnavailable, StoreUnavailable)


@dataclass(slots=True)
class Attempt:
    """One lease, its trainer, and what still has to be written about it."""

    lease: Lease
    job: Job
    is_restored: bool = False
    step: int = 0
    saved_step: int = -1
    """Step of the newest checkpoint committed by anybody, as far as this attempt knows."""
    spooled: list[int] = field(default_factory=list)
    lines: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    in_doubt: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    num_written: int = 0
    desired: Desired = Desired.RUN
    has_crashed: bool = False
    is_draining: bool = False
    is_closing: bool = False
    """Everything but its end is written, and perhaps that, with the answer lost."""
    last_contact: float = 0.0
    was_stopped: bool = False
    """Whether the worker stood still since the claim: then it may lose its lease."""
    bundle: NewModelVersion | None = None

    @property
    def last_step(self) -> int:
        return int(self.job.spec["config"]["limits"]["max_steps"])


def manifest_of(body: bytes) -> Manifest:
    """Return the manifest of a folder that holds nothing but weights."""
    return Manifest({"model.safetensors": FileEntry(len(body), hashlib.sha256(body).hexdigest())})


class Worker:
    """One worker with one slot; a crash forgets everything but its name."""

    def __init__(self, name: str, world: World, database: FlakyDatabase, store: FlakyStore) -> None:
        self.name = name
        self._world = world
        self._database = database
        self._store = store
        self._life = 0
        self.stopped_until = 0.0
        """When it goes on, if it stands still."""
        self._next_heartbeat = 0.0
        self._is_alive = False
        self.attempt: Attempt | None = None
        self.trainers: set[tuple[str, int]] = set()
        """Trainer processes alive: their attempts' markers."""
        self.charged: set[tuple[str, int]] = set()
        """Attempts that this worker gave back as failed ones."""
        self.start()

    def start(self) -> None:
        self._is_alive = True
        self._life += 1
        life = self._life
        self._world.say(self.name, "starts")
        self._world.at(self._world.rng.uniform(0, BEAT_SECONDS), lambda: self._beat(life))

    def ring(self, job_id: str) -> None:
        """Take a message."""
        if self._is_alive and self._world.time >= self.stopped_until and self.attempt is None:
            self._guarded(lambda: self._claim(job_id))

    def stop(self, seconds: float) -> None:
        """Stand still, the trainer with it."""
        if not self._is_alive:
            return
        self._world.say(self.name, "stands still", seconds=round(seconds))
        self.stopped_until = max(self.stopped_until, self._world.time + seconds)
        if self.attempt is not None:
            self.attempt.was_stopped = True

    def crash(self) -> None:
        if not self._is_alive:
            return
        self._world.say(self.name, "dies")
        self._is_alive = False
        self.attempt = None
        self.trainers.clear()
        self._world.at(self._world.rng.uniform(1, 90), self.start)

    def drain(self) -> None:
        if self.attempt is not None:
            self._world.say(self.name, "drains", job=self.attempt.lease.job_id)
            self.attempt.is_draining = True

    def _beat(self, life: int) -> None:
        if life != self._life or not self._is_alive:
            return
        wait = self.stopped_until - self._world.time
        if wait > 0:
            self._world.at(wait, lambda: self._beat(life))
            return
        self._guarded(self._live)
        if self._is_alive:
            self._world.at(self._world.rng.uniform(0.8, 1.2) * BEAT_SECONDS, lambda: self._beat(life))

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Crashed:
            self.crash()
        except LeaseLost:
            self._abandon()
        except AWAY:
            pass

    def _live(self) -> None:
        if self._world.time >= self._next_heartbeat:
            self._next_heartbeat = self._world.time + HEARTBEAT_SECONDS
            info = workers.WorkerInfo(id=self.name, host="h", boot_id="b", pid=1, slots=1, queues=QUEUES)
            with suppress(DatabaseUnavailable), self._database.write() as session:
                workers.heartbeat(session, info)
        if self.attempt is None:
            return
        self._train(self.attempt)
        parts = [self._renew, self._record, self._upload, self._conclude]
        # Threads of a real worker: no order among them is certain, least of all after standing still.
        self._world.rng.shuffle(parts)
        for part in parts:
            if self.attempt is not None:
                with suppress(*AWAY):
                    part(self.attempt)

    def _claim(self, hint: str) -> None:
        lease: Lease | None = None
        with self._database.write() as session:
            lease = jobs.claim_next(session, QUEUES, worker_id=self.name, ttl_seconds=LEASE_SECONDS)
        if lease is None:
            with suppress(LeaseHeld, JobNotRunnable, JobNotFound), self._database.write() as session:
                lease = jobs.claim(session, hint, worker_id=self.name, ttl_seconds=LEASE_SECONDS)
        if lease is None:
            return
        with self._database.read() as session:
            job = jobs.get(session, lease.project, lease.job_id)
        self._world.say(self.name, "claims", job=lease.job_id, token=lease.token)
        self.attempt = Attempt(lease, job, last_contact=self._world.time)
        self.trainers.add((lease.job_id, lease.token))

    def _train(self, attempt: Attempt) -> None:
        if not attempt.is_restored:
            with suppress(*AWAY):
                self._restore(attempt)
            return
        if attempt.has_crashed or attempt.is_closing or attempt.is_draining or attempt.desired is not Desired.RUN:
            return
        if attempt.step == attempt.last_step:
            return
        if self._world.happens(Fault.TRAINER_CRASH, 0.03):
            self._world.say(self.name, "sees its trainer crash", job=attempt.lease.job_id)
            attempt.has_crashed = True
            return
        attempt.step = min(attempt.last_step, attempt.step + STEPS_A_BEAT)
        attempt.lines.append(("step", {"step": attempt.step, "total": attempt.last_step}))
        if attempt.step % CHECKPOINT_EVERY == 0 or attempt.step == attempt.last_step:
            self._save(attempt)

    def _restore(self, attempt: Attempt) -> None:
        with self._database.read() as session:
            newest = checkpoints.newest_committed(session, attempt.lease.job_id)
        while newest is not None:
            try:
                manifest = read_manifest(self._store, newest.prefix, newest.manifest_sha256)
                for name, entry in manifest.files.items():
                    self._store.get(newest.prefix + name, sha256=entry.sha256)
                break
            except IntegrityError:
                self._world.say(self.name, "finds a spoiled checkpoint", step=newest.step)
                with self._database.write() as session:
                    newest = checkpoints.mark_corrupt(session, attempt.lease, newest.id)
        attempt.step = 0 if newest is None else newest.step
        attempt.saved_step = attempt.step if newest is not None else -1
        attempt.is_restored = True

    def _save(self, attempt: Attempt) -> None:
        if attempt.step > max(attempt.saved_step, *attempt.spooled, -1):
            attempt.spooled.append(attempt.step)

    def _renew(self, attempt: Attempt) -> None:
        try:
            with self._database.write() as session:
                attempt.desired = jobs.renew(session, attempt.lease, ttl_seconds=LEASE_SECONDS)
            attempt.last_contact = self._world.time
        except DatabaseUnavailable:
            if self._world.time - attempt.last_contact > NO_CONTACT_SECONDS:
                attempt.was_stopped = True
                self._abandon()
            raise

    def _record(self, attempt: Attempt) -> None:
        if not attempt.in_doubt:
            attempt.in_doubt, attempt.lines = attempt.lines, []
        if attempt.in_doubt:
            with self._database.write() as session:
                jobs.append_events(session, attempt.lease, attempt.in_doubt, position=attempt.num_written)
            attempt.num_written += len(attempt.in_doubt)
            attempt.in_doubt = []

    def _upload(self, attempt: Attempt) -> None:
        while attempt.spooled:
            step, lease = attempt.spooled[0], attempt.lease
            prefix = layout.checkpoint_prefix(lease.project, lease.job_id, step, lease.token)
            sha256 = self._put_files(prefix, f"{lease.job_id} {step}".encode())
            new = NewCheckpoint(step=step, prefix=prefix, manifest_sha256=sha256, size_bytes=1)
            with self._database.write() as session:
                jobs.commit_checkpoint(session, lease, new)
            attempt.saved_step = step
            attempt.spooled.pop(0)

    def _put_files(self, prefix: str, body: bytes) -> str:
        manifest = manifest_of(body)
        self._store.put(f"{prefix}model.safetensors", body)
        self._store.put(layout.manifest(prefix), manifest.to_json())
        return manifest.sha256()

    def _conclude(self, attempt: Attempt) -> None:
        """Write how the attempt ends, once everything before it is written."""
        is_done = attempt.is_restored and attempt.step == attempt.last_step
        is_stopping = attempt.is_draining or attempt.desired is not Desired.RUN
        if not (is_done or is_stopping or attempt.has_crashed):
            return
        if is_stopping and not attempt.has_crashed and attempt.is_restored:
            self._save(attempt)
        if not attempt.is_closing:
            self._upload(attempt)
            self._record(attempt)
        attempt.is_closing = True
        if is_done and not attempt.has_crashed:
            self._succeed(attempt)
        elif attempt.desired is Desired.CANCEL:
            self._cancel(attempt)
        else:
            self._give_back(attempt)
        self._let_go(attempt)

    def _succeed(self, attempt: Attempt) -> None:
        lease = attempt.lease
        if attempt.bundle is None:
            version_id = new_id()
            prefix = layout.bundle_prefix(lease.project, attempt.job.model_id, version_id)
            sha256 = self._put_files(prefix, f"{lease.job_id} model".encode())
            attempt.bundle = NewModelVersion(
                id=version_id,
                checkpoint_id=None,
                config={},
                metrics={},
                bundle_prefix=prefix,
                bundle_sha256=sha256,
                size_bytes=1,
            )
        with self._database.write() as session:
            jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=attempt.bundle)
        self._world.say(self.name, "finishes", job=lease.job_id, token=lease.token)

    def _cancel(self, attempt: Attempt) -> None:
        try:
            with self._database.write() as session:
                jobs.finish(session, attempt.lease, state=JobState.CANCELLED)
        except PreconditionFailed:
            self._world.complain(f"L2: a cancellation of job {attempt.lease.job_id} was forgotten")
            raise

    def _give_back(self, attempt: Attempt) -> None:
        is_charged = attempt.has_crashed
        delay = self._world.rng.choice((0.0, 10.0, 40.0)) if is_charged else 0.0
        if is_charged:
            self.charged.add((attempt.lease.job_id, attempt.lease.token))
        with self._database.write() as session:
            state = jobs.requeue(
                session,
                attempt.lease,
                is_charged=is_charged,
                delay_seconds=delay,
                failure=CRASH if is_charged else None,
            )
        self._world.say(self.name, "gives back", job=attempt.lease.job_id, state=state)

    def _let_go(self, attempt: Attempt) -> None:
        self.trainers.discard((attempt.lease.job_id, attempt.lease.token))
        self.attempt = None
        # As a real one does: whatever is due next needs no message.
        if not attempt.is_draining:
            self._claim(attempt.lease.job_id)

    def _abandon(self) -> None:
        attempt = self.attempt
        if attempt is None:
            return
        self._world.say(self.name, "lost its lease", job=attempt.lease.job_id, token=attempt.lease.token)
        if not attempt.was_stopped and self._was_taken(attempt.lease):
            self._world.complain(f"L1: job {attempt.lease.job_id} was taken from a worker that never stood still")
        self.charged.discard((attempt.lease.job_id, attempt.lease.token))
        self.trainers.discard((attempt.lease.job_id, attempt.lease.token))
        self.attempt = None

    def _was_taken(self, lease: Lease) -> bool:
        """Tell whether the reaper ended the attempt, and not its own last write whose answer got lost."""
        with VirtualDatabase.read(self._database) as session:
            attempts = {attempt.token: attempt.state for attempt in jobs.list_attempts(session, lease.job_id)}
        return attempts[lease.token] is AttemptState.LOST
