"""The agent's loop: keeps TorchServe running, reconciles when something changed or time is up, reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from services.agent import metrics
from services.agent.client import Token, TorchServeClient, TorchServeUnavailable
from services.agent.config import LOOPBACK, Layout, batch_size, startup_seconds
from services.agent.model_store import ModelStore
from services.agent.plan import Limits, Wanted
from services.agent.reconciler import Outcome, Reconciler
from services.agent.report import Reporter
from services.agent.torchserve import TorchServeProcess
from services.core.clock import Deadline
from services.core.cores import core_count
from services.core.errors import DatabaseUnavailable
from services.core.outage import Outage
from services.core.settings import Settings
from services.db import deployments
from services.db.changes import ChangeFeed
from services.db.database import Database
from services.db.deployments import Observed
from services.storage.port import ObjectStore

log = structlog.get_logger()

_PENDING_SECONDS = 0.25
_SLOW_PENDING_SECONDS = 2.0
_PATIENCE_SECONDS = 150.0
_SLICE_SECONDS = 0.5
_QUIET_SECONDS = 0.1


class Agent:
    """One TorchServe's agent. `run` returns after `stop` is set, with TorchServe ended if the agent started it."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        objects: ObjectStore,
        agent_id: str,
        is_launching: bool = True,
    ) -> None:
        layout = Layout(settings.resolved_torchserve_dir.absolute())
        layout.create()
        self._interval = settings.timings.reconcile_interval
        self._database = database
        self._reporter = Reporter(settings, database, agent_id)
        self._process = TorchServeProcess(settings, layout) if is_launching else None
        inference_host = LOOPBACK if settings.host == "0.0.0.0" else settings.host  # noqa: S104 - compared, not bound
        self._client = TorchServeClient(
            management_url=f"http://{LOOPBACK}:{settings.torchserve_management_port}",
            inference_url=f"http://{inference_host}:{settings.torchserve_inference_port}",
            key_file=layout.key_file,
            batch_size=batch_size(settings.serving_device),
            startup_seconds=startup_seconds(settings),
        )
        self._reconciler = Reconciler(
            client=self._client,
            models=ModelStore(layout.model_store, objects),
            model_log=layout.logs / "model_log.log",
            limits=Limits(
                start_seconds=settings.timings.serving_start_limit,
                restarts=settings.timings.serving_restart_limit,
                loading_workers=core_count(),
                worker_bytes=settings.serving_memory_limit_bytes,
            ),
        )
        self._wanted: list[Wanted] = []
        self._observed: Sequence[Observed] = ()
        self._incarnation = 0
        self._outage = Outage(away="desired_unknown", back="desired_known_again")

    def run(self, stop: threading.Event) -> None:
        feed = self._database.changes()
        pending_since = time.monotonic()
        try:
            while not stop.is_set():
                if self._look_safely():
                    pending_since = time.monotonic()
                    self._wait(feed, self._interval, stop)
                else:
                    is_patient = time.monotonic() - pending_since < _PATIENCE_SECONDS
                    stop.wait(_PENDING_SECONDS if is_patient else _SLOW_PENDING_SECONDS)
        finally:
            feed.close()
            if self._process is not None:
                self._process.stop()
                self._reporter.report((), None)
            self._client.close()

    def is_ready(self) -> bool:
        """Tell whether TorchServe answers now; any thread may ask."""
        return (self._process is None or self._process.is_alive) and self._client.answers()

    def _look_safely(self) -> bool:
        """Do one round and return whether all is settled; a fault of ours must not end what TorchServe serves."""
        try:
            return self._look().is_settled
        except Exception:
            log.exception("look_failed")
            return False

    def _look(self) -> Outcome:
        """Do one round: TorchServe runs, serves what is wanted, and the database knows."""
        if self._process is not None:
            self._process.ensure_running()
            if self._process.incarnation != self._incarnation:
                self._incarnation = self._process.incarnation
                metrics.STARTS.inc()
                self._reconciler.begin_again()
        self._wanted = self._read_wanted()
        token: Token | None = None
        try:
            if self._client.renew_tokens(datetime.now(UTC)):
                # Before anything else: the old one ended with the rotation.
                self._reporter.report(self._observed, self._client.inference_token)
            outcome = self._reconciler.reconcile(self._wanted)
            token = self._client.inference_token
        except TorchServeUnavailable as err:
            unknown = tuple(Observed(one.uid, one.sha256, False, str(err)) for one in self._wanted)
            outcome = Outcome(unknown, is_settled=False)
        metrics.READY.set(sum(seen.is_ready for seen in outcome.observed))
        self._observed = outcome.observed
        self._reporter.report(outcome.observed, token)
        return outcome

    def _wait(self, feed: ChangeFeed, seconds: float, stop: threading.Event) -> None:
        """Wait until another look is due: something is wanted that was not, TorchServe ended, or time is up."""
        deadline = Deadline(seconds)
        while not deadline.is_over and not stop.is_set():
            has_changed = feed.wait(min(_SLICE_SECONDS, deadline.remaining))
            if self._process is not None and not self._process.is_alive:
                return
            if has_changed:
                if self._read_wanted() != self._wanted:
                    return
                # On SQLite every commit of anybody wakes this, a training step's too.
                stop.wait(_QUIET_SECONDS)

    def _read_wanted(self) -> list[Wanted]:
        """Return what to serve; while the database is away, what was wanted last."""
        try:
            with self._database.read() as session:
                wanted = [_to_wanted(one) for one in deployments.desired(session)]
        except DatabaseUnavailable as err:
            self._outage.miss(error=str(err))
            return self._wanted
        self._outage.answer()
        return wanted


def _to_wanted(desired: deployments.Desired) -> Wanted:
    return Wanted(
        uid=desired.deployment_uid,
        name=desired.model_name,
        key=desired.archive_key,
        sha256=desired.archive_sha256,
        size_bytes=desired.archive_size_bytes,
        workers=desired.workers,
        generation=desired.generation,
        deployment_id=desired.deployment_id,
    )
