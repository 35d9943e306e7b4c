"""The last writes of an attempt: what its child saved, its result, and the one move that closes it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from services.core.clock import Deadline
from services.core.errors import DatabaseUnavailable, LeaseLost, PreconditionFailed, StoreUnavailable
from services.core.ids import new_id
from services.core.states import FailureReason, JobState
from services.db import jobs
from services.db.job_records import Failure, Job, Lease
from services.db.models import NewModelVersion
from services.storage import layout
from services.storage.manifest import upload_directory
from workers.inputs import STORE_PATIENCE_SECONDS
from workers.outcome import Outcome, Verdict, failed
from workers.persist import insist
from workers.plan import log_tail
from workers.recorder import Recorder
from workers.runtime import Runtime
from workers.stop import StopReason, StopRequest
from workers.uploads import Uploader

log = structlog.get_logger(__name__)

T = TypeVar("T")


class _Patience:
    """How long the store may stay away: until the time is over, or sooner once the worker drains."""

    def __init__(self, stop: StopRequest, seconds: float, drain_seconds: float) -> None:
        self._stop = stop
        self._whole = Deadline(seconds)
        self._drain_seconds = drain_seconds
        self._drain: Deadline | None = None

    @property
    def remaining(self) -> float:
        if self._drain is None and self._stop.is_draining:
            self._drain = Deadline(self._drain_seconds)
        return self._whole.remaining if self._drain is None else min(self._whole.remaining, self._drain.remaining)

    @property
    def is_over(self) -> bool:
        return self.remaining <= 0


class Conclusion:
    """Closes one attempt by its outcome; another attempt's lease makes every write a no-op."""

    def __init__(self, runtime: Runtime, lease: Lease, job: Job, directory: Path, stop: StopRequest) -> None:
        self._runtime = runtime
        self._lease = lease
        self._job = job
        self._directory = directory
        self._stop = stop

    def write(self, outcome: Outcome, recorder: Recorder, uploader: Uploader) -> Verdict:
        """Bring home what the child saved, close the attempt, and return what became of it."""
        if outcome.verdict is Verdict.ABANDON:
            return Verdict.ABANDON
        patience = _Patience(self._stop, self._seconds_for(outcome), self._runtime.settings.timings.drain_budget / 2)
        is_saved = uploader.finish(patience)
        recorder.flush(Deadline(self._runtime.settings.timings.no_contact_limit))
        if self._stop.is_lost:
            return Verdict.ABANDON
        if outcome.verdict is Verdict.SUCCEED and not is_saved:
            outcome = _store_away()
        try:
            return self._close(outcome, uploader, patience)
        except (LeaseLost, DatabaseUnavailable) as err:
            log.warning("attempt_abandoned", job=self._lease.job_id, token=self._lease.token, error=str(err))
            return Verdict.ABANDON

    def _seconds_for(self, outcome: Outcome) -> float:
        if outcome.verdict is Verdict.SUCCEED:
            return STORE_PATIENCE_SECONDS
        timings = self._runtime.settings.timings
        is_given_back = self._stop.is_draining or self._stop.reason is StopReason.YIELD
        return timings.drain_budget if is_given_back else timings.term_grace

    def _close(self, outcome: Outcome, uploader: Uploader, patience: _Patience) -> Verdict:
        if outcome.verdict is Verdict.SUCCEED:
            try:
                self._succeed(outcome, uploader, patience)
            except StoreUnavailable:
                outcome = _store_away()
            else:
                return Verdict.SUCCEED
        if outcome.verdict is Verdict.CANCEL:
            return self._cancel()
        if outcome.verdict is Verdict.FAIL:
            self._finish(JobState.FAILED, failure=self._failure(outcome))
            return Verdict.FAIL
        return self._requeue(outcome)

    def _succeed(self, outcome: Outcome, uploader: Uploader, patience: _Patience) -> None:
        version_id = new_id()
        prefix = layout.bundle_prefix(self._lease.project, self._job.model_id, version_id)
        bundle_dir = Path(outcome.final["bundle_dir"])
        manifest = insist(
            lambda: upload_directory(self._runtime.store, prefix, bundle_dir),
            what="bundle",
            deadline=patience,
            stop=self._stop,
        )
        version = NewModelVersion(
            id=version_id,
            checkpoint_id=uploader.last_checkpoint_id or self._job.checkpoint_id,
            config=self._job.spec["config"],
            metrics={name: value for name, value in outcome.final["metrics"].items() if value is not None},
            bundle_prefix=prefix,
            bundle_sha256=manifest.sha256(),
            size_bytes=manifest.size_bytes,
        )
        self._finish(JobState.SUCCEEDED, model_version=version)

    def _cancel(self) -> Verdict:
        try:
            self._finish(JobState.CANCELLED)
        except PreconditionFailed:
            log.exception("cancel_unwanted", job=self._lease.job_id)
            return self._requeue(Outcome(Verdict.REQUEUE))
        return Verdict.CANCEL

    def _finish(
        self, state: JobState, *, failure: Failure | None = None, model_version: NewModelVersion | None = None
    ) -> None:
        def finish() -> None:
            with self._runtime.database.write() as session:
                jobs.finish(session, self._lease, state=state, failure=failure, model_version=model_version)

        self._insist_database(finish)

    def _requeue(self, outcome: Outcome) -> Verdict:
        failure = self._failure(outcome)
        delay_seconds = self._delay_seconds(outcome)

        def requeue() -> JobState:
            with self._runtime.database.write() as session:
                return jobs.requeue(
                    session,
                    self._lease,
                    is_charged=outcome.is_charged,
                    delay_seconds=delay_seconds,
                    failure=failure,
                )

        reached = self._insist_database(requeue)
        return _REACHED.get(reached, Verdict.REQUEUE)

    def _delay_seconds(self, outcome: Outcome) -> float:
        if outcome.reason is FailureReason.DISK_FULL:
            # Data sets can be fetched again; what they leave is room for checkpoints.
            self._runtime.cache.clear()
            return self._runtime.settings.timings.disk_full_delay
        if outcome.delay_seconds is None:
            return self._runtime.backoff.delay_seconds(self._lease.attempt, random.Random())
        return outcome.delay_seconds

    def _failure(self, outcome: Outcome) -> Failure | None:
        if outcome.reason is None:
            return None
        return Failure(
            reason=outcome.reason,
            message=outcome.message,
            log_tail=log_tail(self._directory),
            exit_code=outcome.code,
            signal=outcome.signal,
        )

    def _insist_database(self, act: Callable[[], T]) -> T:
        deadline = Deadline(self._runtime.settings.timings.no_contact_limit)
        return insist(act, what="end of the attempt", deadline=deadline, stop=None)


_REACHED = {JobState.FAILED: Verdict.FAIL, JobState.CANCELLED: Verdict.CANCEL}


def _store_away() -> Outcome:
    return failed(
        FailureReason.STORAGE_UNAVAILABLE, "The object store did not take the result; training goes on from there."
    )
