"""One build of a servable archive: bundle down, export in a child, archive up, one write that publishes it.

The same protocol as an attempt in small. A build has no checkpoint: asked to stop, it ends at once and goes back.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from services.core.clock import Deadline
from services.core.errors import (
    DatabaseUnavailable,
    IntegrityError,
    JobNotFound,
    LeaseLost,
    ModelNotFound,
    ObjectNotFound,
    StoreUnavailable,
)
from services.core.states import FailureReason
from services.core.target import ServingTarget
from services.db import archives, models
from services.db.archives import ArchiveLease
from services.db.models import ModelVersion
from services.storage import layout
from services.storage.manifest import download_directory
from workers import host, metrics
from workers.build_outcome import decide_build
from workers.engine.frames import Frame, FrameKind
from workers.inputs import STORE_PATIENCE_SECONDS
from workers.lease import LeaseKeeper
from workers.outcome import Ending, Outcome, Verdict, failed
from workers.packaging import Packager, PackagingEnded
from workers.persist import insist
from workers.plan import PROCESS_NAME, log_tail, write_plan
from workers.runtime import Runtime
from workers.stop import Stopped, StopRequest
from workers.supervisor import Supervisor
from workers.warm_link import WarmParentLost

log = structlog.get_logger(__name__)

T = TypeVar("T")

BUILD_STALL_SECONDS = 1800.0
"""An export may compile for minutes without a word."""
RETRY_SECONDS = 30.0
ARCHIVE = "archive.mar"
_PROGRESS_CHARACTERS = 200


class ArchiveBuild:
    """The supervisor's side of one archive lease."""

    def __init__(self, lease: ArchiveLease, runtime: Runtime) -> None:
        self._lease = lease
        self._runtime = runtime
        self._directory = runtime.attempts_dir / f"{lease.archive_id}-{lease.token}"
        self._progress = ""
        self._stop = StopRequest(runtime.drain)
        self._keeper = LeaseKeeper(self._renew, look=lambda: None, stop=self._stop, timings=runtime.settings.timings)
        self._packager = Packager(
            runtime, run_child=self._run_child, insist=self._insist, threads=ServingTarget.parse(lease.target).threads
        )

    def run(self) -> None:
        """Build to the end; whatever happens, no process, thread or file of it is left."""
        start = time.monotonic()
        with self._tended():
            try:
                version = self._version()
                outcome = self._export(version)
                self._close(outcome, version)
            except (LeaseLost, DatabaseUnavailable, ModelNotFound, JobNotFound) as err:
                # A model version may be deleted while its archive is built, and then its job.
                log.warning("archive_abandoned", archive=self._lease.archive_id, error=str(err))
                outcome = Outcome(Verdict.ABANDON)
        seconds = time.monotonic() - start
        metrics.ARCHIVE_SECONDS.labels(outcome.verdict.value).observe(seconds)
        log.info(
            "archive_finished",
            archive=self._lease.archive_id,
            verdict=outcome.verdict.value,
            message=outcome.message,
            duration_seconds=round(seconds, 3),
        )

    @contextmanager
    def _tended(self) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._keeper.start()
        try:
            yield
        finally:
            self._keeper.close()
            self._stop.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _version(self) -> ModelVersion:
        def read() -> ModelVersion:
            with self._runtime.database.read() as session:
                return models.get_by_id(session, self._lease.model_version_id)

        return self._insist("model version", read)

    def _export(self, version: ModelVersion) -> Outcome:
        try:
            if not version.bundle_sha256:
                version = self._packager.package(version, self._directory / "package")
            bundle_dir = self._fetch(version)
            plan = plan_of(self._lease.target, version, bundle_dir=bundle_dir, out_path=self._directory / ARCHIVE)
            return self._run_child(self._directory, plan)
        except PackagingEnded as ended:
            return ended.outcome
        except Stopped as stopped:
            return decide_build(Ending(stop=stopped.reason))
        except (IntegrityError, ObjectNotFound):
            message = "The model's stored bundle is damaged or gone: train or package the model again."
            return replace(failed(FailureReason.INTERNAL, message), verdict=Verdict.FAIL)
        except StoreUnavailable:
            return failed(FailureReason.STORAGE_UNAVAILABLE, "The object store did not answer.")
        except WarmParentLost as err:
            return failed(FailureReason.WORKER_LOST, f"The worker could not start the build: {err}.")
        except OSError as err:
            log.exception("archive_broken", archive=self._lease.archive_id)
            return failed(FailureReason.DISK_FULL, f"The worker's disk refused the build's files: {err.strerror}.")

    def _run_child(self, directory: Path, plan: Mapping[str, Any]) -> Outcome:
        write_plan(directory, plan)
        timings = self._runtime.settings.timings
        # An export has nothing to save, so it is given no time to: it ends at once and is begun again elsewhere.
        patience = {"term_grace": 0.0, "drain_budget": 0.0}
        stall_floor = max(timings.stall_floor, BUILD_STALL_SECONDS)
        supervisor = Supervisor(
            self._runtime.warm.spawn(directory),
            stop=self._stop,
            timings=timings.model_copy(update={**patience, "stall_floor": stall_floor}),
            on_start=self._note_process,
            on_frame=self._take,
        )
        return decide_build(supervisor.run())

    def _fetch(self, version: ModelVersion) -> Path:
        directory = self._directory / "bundle"

        def download() -> None:
            self._stop.check()
            download_directory(
                self._runtime.store,
                version.bundle_prefix,
                directory,
                version.bundle_sha256,
                progress=lambda *_: self._stop.check(),
            )

        self._insist("bundle", download)
        return directory

    def _close(self, outcome: Outcome, version: ModelVersion) -> None:
        if outcome.verdict is Verdict.SUCCEED:
            self._publish(outcome, version)
        elif outcome.verdict is Verdict.FAIL:
            log.warning("archive_failed", archive=self._lease.archive_id, log=log_tail(self._directory)[-2000:])
            self._write(lambda session: archives.finish_failed(session, self._lease, outcome.message))
        elif outcome.verdict is Verdict.REQUEUE:
            self._requeue(outcome.message, delay_seconds=RETRY_SECONDS if outcome.reason is not None else 0.0)

    def _publish(self, outcome: Outcome, version: ModelVersion) -> None:
        final = outcome.final
        key = layout.archive(
            version.project, version.model_id, version.id, self._lease.target, sha256=str(final["sha256"])
        )
        path = self._directory / ARCHIVE
        stored = self._insist("archive", lambda: self._runtime.store.put_file(key, path))
        if stored.sha256 != final["sha256"]:
            self._requeue("The archive changed on its way into the store.", delay_seconds=RETRY_SECONDS)
            return
        self._write(
            lambda session: archives.finish_ready(
                session,
                self._lease,
                key=key,
                sha256=str(final["sha256"]),
                size_bytes=stored.size_bytes,
                form=str(final["form"]),
                parity={**final["parity"], "forms": final["candidates"]},
            )
        )

    def _requeue(self, message: str, *, delay_seconds: float) -> None:
        self._write(
            lambda session: archives.requeue(session, self._lease, delay_seconds=delay_seconds, message=message)
        )

    def _write(self, act: Callable[[Any], None]) -> None:
        def write() -> None:
            with self._runtime.database.write() as session:
                act(session)

        insist(write, what="end of the build", deadline=Deadline(STORE_PATIENCE_SECONDS), stop=None)

    def _insist(self, what: str, act: Callable[[], T]) -> T:
        return insist(act, what=what, deadline=Deadline(STORE_PATIENCE_SECONDS), stop=self._stop)

    def _note_process(self, pid: int) -> None:
        if (start := host.process_start(pid)) is not None:
            facts = {"pid": pid, "pid_start": start, "boot_id": self._runtime.identity.boot_id}
            (self._directory / PROCESS_NAME).write_text(json.dumps(facts))

    def _take(self, frame: Frame) -> None:
        metrics.EVENTS.labels(frame.kind.value).inc()
        if frame.kind is FrameKind.PHASE:
            told = (frame.fields.get(name) for name in ("phase", "detail"))
            self._progress = " ".join(str(each) for each in told if each)[:_PROGRESS_CHARACTERS]
        log.debug("archive_progress", archive=self._lease.archive_id, kind=frame.kind.value, **frame.fields)

    def _renew(self) -> None:
        with self._runtime.database.write() as session:
            ttl_seconds = self._runtime.settings.timings.lease_ttl
            archives.renew(session, self._lease, ttl_seconds=ttl_seconds, message=self._progress)


def plan_of(target: str, version: ModelVersion, *, bundle_dir: Path, out_path: Path) -> dict[str, Any]:
    """Return what the child is to build: an archive of a model version for the target of this name."""
    parsed = ServingTarget.parse(target)
    return {
        "mode": "export",
        "bundle_dir": str(bundle_dir),
        "out_path": str(out_path),
        "target": asdict(parsed),
        "threads": parsed.threads,
        "model": {
            "name": version.model_id,
            "project": version.project,
            "version": version.version,
            "recipe": version.recipe,
            "id": version.id,
        },
    }
