"""Any interleaving of workers, zombies, users and reapers keeps the invariants; a protocol without tokens does not."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy.sql.elements import ColumnElement

from services.core.errors import JobNotRunnable, LeaseHeld, LeaseLost, PreconditionFailed
from services.core.states import FailureReason, JobState
from services.db import fence, jobs
from services.db import tables as t
from services.db.database import Database
from services.db.jobs import Failure, Lease
from tests.stack.builders import make_dataset, new_checkpoint, new_job, new_model_version
from tests.stack.invariants import violations

FAILURE = Failure(FailureReason.CRASH, "the trainer crashed")
REFUSALS = (LeaseLost, PreconditionFailed)
QUICK = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Protocol(RuleBasedStateMachine):
    """Two jobs; every lease ever given stays in use, as zombies would use it."""

    template: Path
    watched: tuple[str, ...] = ("I",)
    """Which invariants this machine judges by; a mutant must trip the very one that guards against it."""
    leases = Bundle("leases")

    @initialize()
    def submit(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "metadata.sqlite3"
        shutil.copy(self.template, path)
        self.database = Database(f"sqlite:///{path}")
        with self.database.write() as session:
            dataset = make_dataset(session)
            self.jobs = [jobs.insert(session, new_job(dataset.id, max_attempts=3))[0].id for _ in range(2)]
        self.step = 0

    @rule(target=leases, which=st.integers(0, 1), has_expired=st.booleans())
    def claim(self, which: int, has_expired: bool) -> Lease | None:
        with suppress(LeaseHeld, JobNotRunnable), self.database.write() as session:
            return jobs.claim(session, self.jobs[which], worker_id="w", ttl_seconds=-1 if has_expired else 60)
        return None

    @rule(target=leases)
    def claim_next(self) -> Lease | None:
        with self.database.write() as session:
            return jobs.claim_next(session, ["train.cpu"], worker_id="w", ttl_seconds=-1)

    @rule(lease=leases, count=st.integers(1, 3))
    def append(self, lease: Lease | None, count: int) -> None:
        self._write(lease, lambda session, held: jobs.append_events(session, held, [("log", {})] * count))

    @rule(lease=leases, is_repeated=st.booleans())
    def commit_checkpoint(self, lease: Lease | None, is_repeated: bool) -> None:
        self.step += not is_repeated
        self._write(lease, lambda session, held: jobs.commit_checkpoint(session, held, new_checkpoint(self.step)))

    @rule(lease=leases)
    def renew(self, lease: Lease | None) -> None:
        self._write(lease, lambda session, held: jobs.renew(session, held, ttl_seconds=60))

    @rule(lease=leases, state=st.sampled_from([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]))
    def finish(self, lease: Lease | None, state: JobState) -> None:
        model = new_model_version() if state is JobState.SUCCEEDED else None
        self._write(lease, lambda session, held: jobs.finish(session, held, state=state, model_version=model))

    @rule(lease=leases, is_charged=st.booleans())
    def requeue(self, lease: Lease | None, is_charged: bool) -> None:
        self._write(lease, lambda session, held: jobs.requeue(session, held, is_charged=is_charged, failure=FAILURE))

    @rule(which=st.integers(0, 1))
    def cancel(self, which: int) -> None:
        with self.database.write() as session:
            jobs.cancel(session, "default", self.jobs[which], "no longer wanted")

    @rule()
    def reap(self) -> None:
        with self.database.write() as session:
            jobs.reap(session, limit=10, retry_delay_seconds=0)

    def teardown(self) -> None:
        if not hasattr(self, "database"):
            return
        found = [text for text in violations(self.database) if any(f": {code}" in text for code in self.watched)]
        self.database.dispose()
        self.directory.cleanup()
        assert found == []

    def _write(self, lease: Lease | None, write: Any) -> None:
        if lease is not None:
            with suppress(*REFUSALS), self.database.write() as session:
                write(session, lease)


@pytest.fixture
def machine(tmp_path: Path) -> type[Protocol]:
    path = tmp_path / "template.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.dispose()
    return type("ProtocolOnTemplate", (Protocol,), {"template": path})


def test_invariants_survive_any_interleaving(machine: type[Protocol]) -> None:
    run_state_machine_as_test(machine, settings=QUICK)


def test_checker_catches_a_protocol_without_fencing_tokens(
    machine: type[Protocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_held_by_anyone(lease: Lease) -> ColumnElement[bool]:
        return (t.jobs.c.id == lease.job_id) & t.IS_RUNNING

    monkeypatch.setattr(fence, "is_held", is_held_by_anyone)
    machine.watched = ("I2",)

    with pytest.raises(AssertionError, match="I2"):
        run_state_machine_as_test(machine, settings=settings(QUICK, report_multiple_bugs=False))


def test_checker_catches_a_write_after_the_end(machine: type[Protocol], monkeypatch: pytest.MonkeyPatch) -> None:
    def is_held_for_ever(lease: Lease) -> ColumnElement[bool]:
        return (t.jobs.c.id == lease.job_id) & (t.jobs.c.token == lease.token)

    monkeypatch.setattr(fence, "is_held", is_held_for_ever)
    machine.watched = ("I1", "I3")

    with pytest.raises(AssertionError, match=r"I1|I3"):
        run_state_machine_as_test(machine, settings=settings(QUICK, report_multiple_bugs=False))
