"""One attempt of a job from its claim to its end: inputs, child, uploads, and one write that closes it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from services.core.errors import DatabaseUnavailable, DatasetInvalid, LeaseLost, StoreUnavailable
from services.core.states import Desired, FailureReason
from services.db import jobs
from services.db.job_records import Job, Lease
from workers import host, metrics
from workers.adaptation import adapt
from workers.conclusion import Conclusion
from workers.devices import Gpu, is_lost, quarantine
from workers.engine.frames import Frame, FrameInvalid, FrameKind
from workers.families.catalog import family_of
from workers.inputs import InputFetcher, Inputs, SourceGone, origin_of
from workers.lease import LeaseKeeper
from workers.outcome import Ending, Outcome, Verdict, decide, failed, limited
from workers.plan import PROCESS_NAME, SPOOL_NAME, write_plan
from workers.recorder import Recorder
from workers.runtime import Runtime, Slot
from workers.salvage import Salvaged
from workers.stop import Stopped, StopReason, StopRequest
from workers.supervisor import Supervisor
from workers.uploads import Uploader
from workers.warm_link import WarmParentLost

log = structlog.get_logger(__name__)

_SILENT = frozenset({FrameKind.ALIVE, FrameKind.FINAL, FrameKind.FAILURE, FrameKind.CHECKPOINT, FrameKind.ARTIFACT})
"""Frames that are no events themselves: a checkpoint's event is written with its row, an end's with the job's."""

_MAY_BE_THE_GPU = frozenset({FailureReason.CRASH, FailureReason.STALL})

_REASONS = {
    Desired.CANCEL: StopReason.CANCEL,
    Desired.PAUSE: StopReason.YIELD,
    Desired.YIELD: StopReason.YIELD,
}


class Attempt:
    """The supervisor's side of one lease."""

    def __init__(self, lease: Lease, job: Job, runtime: Runtime, *, slot: Slot) -> None:
        self._lease = lease
        self._job = job
        self._runtime = runtime
        self._slot = slot
        self._device = self._choose_device()
        self._faulty_device: str | None = None
        self._family = family_of(job.recipe)
        metrics.expect_attempt(self._family)
        self._start = time.monotonic()
        self._is_first_step = True
        self._earlier: tuple[FailureReason | None, ...] = ()
        self._verdict: Verdict | None = None
        self._directory = runtime.attempts_dir / f"{lease.job_id}-{lease.token}"
        self._stop = StopRequest(runtime.drain)
        self._recorder = Recorder(runtime.database, lease, self._stop)
        self._uploader = Uploader(runtime.store, runtime.database, lease, self._stop, family=self._family)
        self._keeper = LeaseKeeper(self._renew, look=self._look, stop=self._stop, timings=runtime.settings.timings)

    def run(self) -> None:
        """Run the attempt to its end; whatever happens, no process, thread or file of it is left."""
        names = {"recipe": self._job.recipe, "device": self._device, "slot": self._slot.device}
        log.info("attempt_started", **self._names(), **names)
        with self._tended():
            outcome = limited(self._diagnosed(self._train()), self._earlier)
            self._verdict = verdict = Conclusion(
                self._runtime, self._lease, self._job, self._directory, self._stop
            ).write(outcome, self._recorder, self._uploader)
        if outcome.reason is FailureReason.GPU_LOST and self._slot.gpus:
            self._runtime.slots.close(self._slot)
            quarantine(self._runtime.database, self._faulty_gpu(), outcome.message)
        seconds = time.monotonic() - self._start
        reason = outcome.reason or ""
        metrics.ATTEMPTS.labels(self._family, verdict.value, reason).inc()
        metrics.ATTEMPT_SECONDS.labels(self._family, verdict.value).observe(seconds)
        log.info("attempt_finished", **self._names(), verdict=verdict.value, reason=reason, duration_seconds=seconds)

    @contextmanager
    def _tended(self) -> Iterator[None]:
        """Keep the lease, the recorder and the uploader at work; the lease ends last."""
        (self._directory / SPOOL_NAME).mkdir(parents=True, exist_ok=True)
        self._keeper.start()
        self._recorder.start()
        self._uploader.start()
        try:
            yield
        finally:
            self._uploader.close()
            self._recorder.close()
            self._keeper.close()
            self._stop.close()
            metrics.forget_speed(self._family)
            if self._verdict in (None, Verdict.REQUEUE, Verdict.ABANDON) and not self._stop.is_lost:
                self._runtime.salvage.keep(self._directory)
            shutil.rmtree(self._directory, ignore_errors=True)

    def _diagnosed(self, outcome: Outcome) -> Outcome:
        """Return the outcome, after asking the device itself where its trainer ended without saying why."""
        if outcome.reason not in _MAY_BE_THE_GPU:
            return outcome
        gpu = next(filter(is_lost, self._slot.gpus), None)
        if gpu is None:
            return outcome
        self._faulty_device = gpu.device
        message = (
            f"GPU {gpu.index} does not answer any more: look at it before more jobs run there. ({outcome.message})"
        )
        return replace(failed(FailureReason.GPU_LOST, message), code=outcome.code, signal=outcome.signal)

    def _faulty_gpu(self) -> Gpu:
        return next((gpu for gpu in self._slot.gpus if gpu.device == self._faulty_device), self._slot.gpus[0])

    def _train(self) -> Outcome:
        try:
            fetcher = InputFetcher(self._runtime, self._lease, self._directory, self._stop)
            with fetcher.hold(self._job) as inputs:
                self._earlier = inputs.earlier
                if inputs.salvaged is not None:
                    self._adopt(inputs.salvaged)
                write_plan(self._directory, self._plan(inputs))
                child = self._runtime.warm.spawn(self._directory)
                supervisor = Supervisor(
                    child,
                    stop=self._stop,
                    timings=self._runtime.settings.timings,
                    on_start=self._note_process,
                    on_frame=self._take,
                    memory_limit_bytes=self._runtime.settings.worker_memory_limit_bytes,
                )
                ending = supervisor.run()
                # Looked at now: the attempt's own files are still there, and they go with it.
                return decide(replace(ending, is_disk_full=self._runtime.full_disk is not None))
        except Stopped as stopped:
            return decide(Ending(stop=stopped.reason))
        except (LeaseLost, DatabaseUnavailable):
            self._stop.request(StopReason.LOST)
            return Outcome(Verdict.ABANDON)
        except DatasetInvalid as err:
            return failed(FailureReason.INVALID_DATASET, str(err))
        except SourceGone as err:
            return failed(FailureReason.SPEC_INVALID, str(err))
        except StoreUnavailable:
            return failed(FailureReason.STORAGE_UNAVAILABLE, "The object store did not answer; the job waits for it.")
        except WarmParentLost as err:
            return failed(FailureReason.WORKER_LOST, f"The worker could not start a trainer: {err}.")
        except OSError as err:
            log.exception("attempt_broken", **self._names())
            return failed(FailureReason.DISK_FULL, f"The worker's disk refused the job's files: {err.strerror}.")

    def _adopt(self, salvaged: Salvaged) -> None:
        """Commit, under our own token, the checkpoint this attempt goes on from."""
        files = [asdict(digest) for digest in salvaged.digests()]
        self._uploader.add_checkpoint(
            {"step": salvaged.step, "path": str(salvaged.path), "metric": salvaged.metric, "files": files}
        )
        text = f"going on from step {salvaged.step}, which an earlier attempt left on this host uncommitted"
        self._recorder.add("log", {"level": "info", "text": text})

    def _plan(self, inputs: Inputs) -> dict[str, Any]:
        cache_dir = self._runtime.settings.state_dir / "cache" / "engine"
        cache_dir.mkdir(parents=True, exist_ok=True)
        loader_workers = self._job.spec["config"].get("runtime", {}).get("loader_workers", 0)
        adaptation = adapt(inputs.earlier, loader_workers=loader_workers)
        return {
            "mode": "train",
            "job_id": self._lease.job_id,
            "attempt": self._lease.attempt,
            "token": self._lease.token,
            "recipe": self._job.recipe,
            "config": self._job.spec["config"],
            "dataset_dir": str(inputs.dataset_dir),
            "resume_dir": None if inputs.resume_dir is None else str(inputs.resume_dir),
            "source": inputs.source,
            "origin": origin_of(self._job),
            "device": self._device,
            **self._crew(),
            "threads": self._runtime.threads,
            "micro_batches": adaptation.micro_batches,
            "loader_workers": adaptation.loader_workers,
            "cache_dir": str(cache_dir),
            "spool_dir": str(self._directory / SPOOL_NAME),
        }

    def _crew(self) -> dict[str, Any]:
        """Return the devices of a job that trains in several processes."""
        processes = int(self._job.spec.get("resources", {}).get("processes", 1))
        if processes == 1:
            return {}
        return {"devices": ["cpu"] * processes if self._device == "cpu" else self._slot.devices(processes)}

    def _choose_device(self) -> str:
        wanted = self._job.spec["config"].get("runtime", {}).get("device", "auto")
        return "cpu" if wanted == "cpu" else self._slot.device

    def _note_process(self, pid: int) -> None:
        start = host.process_start(pid)
        if start is None:
            return
        identity = self._runtime.identity
        facts: dict[str, Any] = {"pid": pid, "pid_start": start, "boot_id": identity.boot_id}
        (self._directory / PROCESS_NAME).write_text(json.dumps(facts))
        facts |= {"host": identity.host, "device": self._device}
        self._recorder.add_process(partial(jobs.record_attempt, lease=self._lease, **facts))

    def _take(self, frame: Frame) -> None:
        """Pass a frame on; what waits, waits in the recorder's and the uploader's threads.

        Raises:
            FrameInvalid: the frame names a file outside the attempt's spool, or lacks what its kind has.
        """
        metrics.EVENTS.labels(frame.kind.value).inc()
        try:
            if frame.kind is FrameKind.CHECKPOINT:
                self._check_spooled(frame)
                self._uploader.add_checkpoint(frame.fields)
                metrics.CHECKPOINT_STALL_SECONDS.labels(self._family).observe(frame.fields["stall_ms"] / 1000)
            elif frame.kind is FrameKind.ARTIFACT:
                self._check_spooled(frame)
                self._uploader.add_artifact(frame.fields)
            elif frame.kind is FrameKind.STEP:
                self._note_step(frame)
            elif frame.kind is FrameKind.FAILURE:
                self._faulty_device = frame.fields.get("device")
                # What explains itself to its owner has no traceback in the job's log, and may still be ours to mend.
                told = {name: frame.fields.get(name) for name in ("reason", "traceback")}
                log.info("trainer_failed", **self._names(), **told)
        except (KeyError, TypeError, ValueError, OSError) as err:
            raise FrameInvalid(f"a {frame.kind} frame cannot be used: {err!r}") from err
        if frame.kind not in _SILENT:
            self._recorder.add(frame.kind.value, frame.fields)

    def _note_step(self, frame: Frame) -> None:
        metrics.observe_step(self._family, frame.fields)
        if self._is_first_step:
            self._is_first_step = False
            metrics.CLAIM_SECONDS.labels(self._family).observe(time.monotonic() - self._start)

    def _check_spooled(self, frame: Frame) -> None:
        spool = (self._directory / SPOOL_NAME).resolve()
        if not Path(frame.fields["path"]).resolve().is_relative_to(spool):
            raise FrameInvalid(f"a {frame.kind} frame names a path outside the spool")

    def _renew(self) -> StopReason | None:
        ttl_seconds = self._runtime.settings.timings.lease_ttl
        with self._runtime.database.write() as session:
            return _REASONS.get(jobs.renew(session, self._lease, ttl_seconds=ttl_seconds))

    def _look(self) -> StopReason | None:
        with self._runtime.database.read() as session:
            return _REASONS.get(jobs.desired(session, self._lease))

    def _names(self) -> dict[str, Any]:
        return {"job": self._lease.job_id, "attempt": self._lease.attempt, "token": self._lease.token}
