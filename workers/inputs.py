"""Brings what a trainer needs onto local disk, verified: its dataset, and the checkpoint it goes on or starts from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from services.core.clock import Deadline
from services.core.errors import (
    CheckpointNotFound,
    DatasetInvalid,
    DatasetNotFound,
    IntegrityError,
    ModelNotFound,
    ObjectNotFound,
)
from services.core.states import FailureReason
from services.db import checkpoints, datasets, jobs, models
from services.db.checkpoints import Checkpoint
from services.db.datasets import DatasetVersion
from services.db.job_records import Job, Lease
from services.storage import layout
from services.storage.manifest import download_directory
from workers.cache import DatasetRef
from workers.families.config import TORCHVISION, WEIGHTS
from workers.persist import insist
from workers.plan import RESUME_NAME, SOURCE_NAME, SPOOL_NAME
from workers.runtime import Runtime
from workers.salvage import Salvaged, link_copy
from workers.stop import StopRequest
from workers.sweep import keep_of_dead

log = structlog.get_logger(__name__)

T = TypeVar("T")

STORE_PATIENCE_SECONDS = 30 * 60.0
"""How long an attempt waits for an object store that is away before it gives the job back."""


class SourceGone(Exception):
    """What a job starts from is damaged, or stored no more."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Local, verified directories."""

    dataset_dir: Path
    resume_dir: Path | None
    source: Mapping[str, Any] | None
    """What the networks start from, as `SourcePlan` has it; None for an attempt that resumes."""
    salvaged: Salvaged | None
    """A checkpoint in the attempt's spool that `resume_dir` is a copy of, still to be committed."""
    earlier: tuple[FailureReason | None, ...]
    """Why earlier attempts of the job ended, oldest first; None for those that did not fail."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A bundle or a checkpoint in the store, and what trained it."""

    recipe: str
    config: Mapping[str, Any]
    prefix: str
    manifest_sha256: str


def origin_of(job: Job) -> str:
    """Return the name of what a job starts from; empty where it starts from nothing."""
    name: str = (job.spec.get("init_from") or {}).get("name", "")
    return name


class InputFetcher:
    """Fetches the inputs of one attempt, and gives up as soon as the attempt is asked to stop."""

    def __init__(self, runtime: Runtime, lease: Lease, directory: Path, stop: StopRequest) -> None:
        self._runtime = runtime
        self._lease = lease
        self._directory = directory
        self._stop = stop

    @contextmanager
    def hold(self, job: Job) -> Iterator[Inputs]:
        """Keep the inputs on disk while the context lasts.

        Raises:
            Stopped: the attempt should end now.
            DatasetInvalid: the stored dataset is damaged.
            SourceGone: what the job starts from is damaged or not stored any more.
            StoreUnavailable, DatabaseUnavailable: they stayed away too long.
            LeaseLost: another attempt owns the job.
        """
        version, checkpoint, earlier = self._insist("job's inputs", lambda: self._look_up(job))
        ref = DatasetRef(
            layout.dataset_prefix(version.project, version.dataset_id, version.id),
            version.manifest_sha256,
            version.size_bytes,
        )
        with ExitStack() as held:
            cached = self._runtime.cache
            try:
                dataset_dir = self._insist(
                    "dataset", lambda: held.enter_context(cached.hold(ref, progress=self._check_stop))
                )
            except (IntegrityError, ObjectNotFound) as err:
                text = f"The dataset's stored files are damaged or gone: import it again. ({err})"
                raise DatasetInvalid(text) from err
            salvaged = self._salvage(-1 if checkpoint is None else checkpoint.step)
            resume_dir = self._fetch_resume(checkpoint) if salvaged is None else self._directory / RESUME_NAME
            source = self._fetch_source(job) if resume_dir is None else None
            yield Inputs(dataset_dir, resume_dir, source, salvaged, earlier)

    def _look_up(self, job: Job) -> tuple[DatasetVersion, Checkpoint | None, tuple[FailureReason | None, ...]]:
        with self._runtime.database.read() as session:
            version = datasets.get_by_id(session, job.dataset_version_id)
            ended = [one for one in jobs.list_attempts(session, job.id) if one.token < self._lease.token]
            reasons = tuple(one.failure_reason for one in ended)
            return version, checkpoints.newest_committed(session, job.id), reasons

    def _salvage(self, after_step: int) -> Salvaged | None:
        """Take over a later checkpoint than the committed ones that an earlier attempt left on this host."""
        runtime = self._runtime
        keep_of_dead(runtime.home.parent, runtime.home, runtime.salvage, job_id=self._lease.job_id)
        spool = self._directory / SPOOL_NAME
        salvaged = runtime.salvage.take(self._lease, after_step=after_step, into=spool)
        if salvaged is not None:
            link_copy(salvaged.path, self._directory / RESUME_NAME)
        return salvaged

    def _fetch_resume(self, checkpoint: Checkpoint | None) -> Path | None:
        """Download the newest checkpoint whose bytes are what was committed; None begins anew."""
        directory = self._directory / RESUME_NAME
        while checkpoint is not None:
            try:
                self._download(checkpoint, directory)
            except (IntegrityError, ObjectNotFound) as err:
                log.warning("checkpoint_corrupt", job=self._lease.job_id, step=checkpoint.step, error=str(err))
                checkpoint = self._retire(checkpoint)
            else:
                return directory
        return None

    def _fetch_source(self, job: Job) -> Mapping[str, Any] | None:
        """Download what the job starts from; None where it starts from nothing."""
        spec = job.spec.get("init_from")
        if not spec:
            return None
        directory = self._directory / SOURCE_NAME
        plan = {"name": spec["name"], "kind": spec["kind"], "directory": str(directory)}
        if spec["kind"] == TORCHVISION:
            self._fetch_published(spec["name"].removeprefix(f"{TORCHVISION}:"), directory)
            return {**plan, "recipe": TORCHVISION, "config": {}}
        try:
            stored = self._insist("source", lambda: self._look_up_source(job, spec))
            self._download(stored, directory)
        except (CheckpointNotFound, DatasetNotFound, ModelNotFound, IntegrityError, ObjectNotFound) as err:
            text = f"{spec['name']}, which the job starts from, is damaged or gone: start a new job from another one."
            raise SourceGone(text) from err
        return {**plan, "recipe": stored.recipe, "config": dict(stored.config)}

    def _look_up_source(self, job: Job, spec: Mapping[str, Any]) -> _Stored:
        with self._runtime.database.read() as session:
            if spec["kind"] == "model":
                version = models.get_by_id(session, spec["id"])
                return _Stored(version.recipe, version.config, version.bundle_prefix, version.bundle_sha256)
            if spec["kind"] == WEIGHTS:
                uploaded = datasets.get_by_id(session, spec["id"])
                prefix = layout.dataset_prefix(uploaded.project, uploaded.dataset_id, uploaded.id)
                return _Stored(WEIGHTS, {}, prefix, uploaded.manifest_sha256)
            checkpoint = checkpoints.get(session, spec["job_id"], spec["id"])
            trained = jobs.get(session, job.project, spec["job_id"])
            return _Stored(trained.recipe, trained.spec["config"], checkpoint.prefix, checkpoint.manifest_sha256)

    def _fetch_published(self, weights: str, directory: Path) -> None:
        """Take weights from where an operator put them; where nobody did, the trainer asks their publisher."""
        key = layout.published_weights(TORCHVISION, weights)
        directory.mkdir(exist_ok=True)
        with suppress(ObjectNotFound):
            self._insist("published weights", lambda: self._runtime.store.get_file(key, directory / "weights.pth"))

    def _download(self, stored: Checkpoint | _Stored, directory: Path) -> None:
        def download() -> None:
            shutil.rmtree(directory, ignore_errors=True)
            download_directory(
                self._runtime.store,
                stored.prefix,
                directory,
                stored.manifest_sha256,
                progress=self._check_stop,
            )

        self._insist("checkpoint", download)

    def _retire(self, checkpoint: Checkpoint) -> Checkpoint | None:
        def retire() -> Checkpoint | None:
            with self._runtime.database.write() as session:
                return checkpoints.mark_corrupt(session, self._lease, checkpoint.id)

        return self._insist("corrupt checkpoint", retire)

    def _insist(self, what: str, act: Callable[[], T]) -> T:
        def try_once() -> T:
            self._stop.check()
            return act()

        return insist(try_once, what=what, deadline=Deadline(STORE_PATIENCE_SECONDS), stop=self._stop)

    def _check_stop(self, *_: object) -> None:
        self._stop.check()
