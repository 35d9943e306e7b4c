"""The bundle of a model version that was asked for from a checkpoint: made once, when a build first needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from services.core.errors import CheckpointNotFound, IntegrityError, ObjectNotFound
from services.core.ids import new_id
from services.core.states import FailureReason
from services.db import checkpoints, datasets, jobs, models
from services.db.checkpoints import Checkpoint
from services.db.datasets import DatasetVersion
from services.db.models import ModelVersion
from services.storage import layout
from services.storage.manifest import download_directory, upload_directory
from workers.cache import DatasetRef
from workers.inputs import origin_of
from workers.outcome import Outcome, Verdict
from workers.runtime import Runtime

T = TypeVar("T")

RunChild = Callable[[Path, Mapping[str, Any]], Outcome]


class Insist(Protocol):
    """Calls `act` until it works or the build is asked to stop."""

    def __call__(self, what: str, act: Callable[[], T]) -> T: ...


class PackagingEnded(Exception):
    """There is no bundle; `outcome` says what becomes of the build."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


class Packager:
    """Packages checkpoints in a child of the worker."""

    def __init__(self, runtime: Runtime, *, run_child: RunChild, insist: Insist, threads: int) -> None:
        self._runtime = runtime
        self._run_child = run_child
        self._insist = insist
        self._threads = threads

    def package(self, version: ModelVersion, directory: Path) -> ModelVersion:
        """Store the bundle of `version` and return the version with it; safe beside a second packager.

        Raises:
            PackagingEnded: the checkpoint or its dataset is gone, or the child did not finish.
        """
        try:
            checkpoint, dataset, origin = self._insist("checkpoint", lambda: self._look_up(version))
            directory.mkdir()
            self._insist("checkpoint", lambda: self._download(checkpoint, directory / "checkpoint"))
            metrics = self._make(version, dataset, directory, origin=origin)
        except (CheckpointNotFound, IntegrityError, ObjectNotFound) as err:
            message = "The checkpoint, or the dataset it was trained on, is gone or damaged: package another one."
            raise PackagingEnded(Outcome(Verdict.FAIL, FailureReason.INTERNAL, message)) from err
        return self._publish(version, directory / "bundle", metrics)

    def _look_up(self, version: ModelVersion) -> tuple[Checkpoint, DatasetVersion, str]:
        with self._runtime.database.read() as session:
            job = jobs.get(session, version.project, version.job_id)
            checkpoint = checkpoints.get(session, version.job_id, version.checkpoint_id or "")
            return checkpoint, datasets.get_by_id(session, job.dataset_version_id), origin_of(job)

    def _download(self, checkpoint: Checkpoint, directory: Path) -> None:
        download_directory(self._runtime.store, checkpoint.prefix, directory, checkpoint.manifest_sha256)

    def _make(
        self, version: ModelVersion, dataset: DatasetVersion, directory: Path, *, origin: str
    ) -> dict[str, float]:
        prefix = layout.dataset_prefix(dataset.project, dataset.dataset_id, dataset.id)
        ref = DatasetRef(prefix, dataset.manifest_sha256, dataset.size_bytes)
        with self._runtime.cache.hold(ref) as dataset_dir:
            plan = {
                "mode": "package_checkpoint",
                "recipe": version.recipe,
                "config": version.config,
                "dataset_dir": str(dataset_dir),
                "checkpoint_dir": str(directory / "checkpoint"),
                "bundle_dir": str(directory / "bundle"),
                "origin": origin,
                "device": "cpu",
                "threads": self._threads,
            }
            outcome = self._run_child(directory, plan)
        if outcome.verdict is not Verdict.SUCCEED:
            raise PackagingEnded(outcome)
        return {name: value for name, value in outcome.final["metrics"].items() if value is not None}

    def _publish(self, version: ModelVersion, bundle_dir: Path, metrics: Mapping[str, float]) -> ModelVersion:
        # A prefix of its own: builds for two targets may package the same version at the same time.
        prefix = layout.bundle_prefix(version.project, version.model_id, new_id())
        manifest = self._insist("bundle", lambda: upload_directory(self._runtime.store, prefix, bundle_dir))

        def write() -> ModelVersion:
            with self._runtime.database.write() as session:
                return models.set_bundle(
                    session,
                    version.id,
                    bundle_prefix=prefix,
                    bundle_sha256=manifest.sha256(),
                    size_bytes=manifest.size_bytes,
                    metrics=metrics,
                )

        return self._insist("bundle's row", write)
