"""The protocol's invariants, checked over what a run ended up with (RELIABILITY: invariant checker).

Pure reading; every violation is one sentence that begins with the name of its invariant. The database
alone shows I1 to I5 and half of I8 and I9; what else a run knows, its `Evidence`, shows the rest. A run
without violations proves little unless a mutant of the protocol makes the same checker speak
(`tests/chaos/mutants.py`).
"""

from __future__ import annotations

import itertools

import sqlalchemy as sa

from services.core.states import TERMINAL, AttemptState, JobState
from services.db import jobs
from services.db import tables as t
from services.db.checkpoints import list_all
from services.db.database import Database
from tests.stack.evidence import Evidence, evidence_violations

TERMINAL_KINDS = frozenset(state.value for state in TERMINAL)
RAISING_KINDS = frozenset({"claimed", "requeued", "reaped"})
ON_A_WORKER = frozenset({JobState.RUNNING, JobState.CANCELLING, JobState.PAUSING})


def violations(database: Database, evidence: Evidence | None = None) -> list[str]:
    """Return every violation in any job; none means the protocol held.

    Call it when the run has come to rest: faults over, leases renewed or reaped, garbage collected.
    """
    found: list[str] = [] if evidence is None else evidence_violations(database, evidence)
    with database.read() as session:
        rows = session.execute(sa.select(t.jobs.c.project, t.jobs.c.id)).all()
        for project, job_id in rows:
            job = jobs.get(session, project, job_id)
            history = jobs.events_after(session, job_id, 0, 1_000_000)
            found += [f"job {job_id}: {text}" for text in _history_violations(job, history)]
            found += [f"job {job_id}: {text}" for text in _attempt_violations(job, jobs.list_attempts(session, job_id))]
            found += [f"job {job_id}: {text}" for text in _checkpoint_violations(job, list_all(session, job_id))]
    return found


def _history_violations(job: jobs.Job, history: list[jobs.Event]) -> list[str]:
    found = []
    ends = [event for event in history if event.kind in TERMINAL_KINDS]
    if len(ends) != (1 if job.state in TERMINAL else 0):
        found.append(f"I1: {len(ends)} terminal events in state {job.state}")
    if ends and ends[0].kind != job.state:
        found.append(f"I1: ended by {ends[0].kind} but is {job.state}")
    if ends and ends[0].seq != history[-1].seq:
        found.append(f"I3: {history[-1].kind} was written after {ends[0].kind}")
    for before, event in itertools.pairwise(history):
        if event.token < before.token:
            found.append(f"I2: {event.kind} of token {event.token} after {before.kind} of token {before.token}")
        if event.kind in RAISING_KINDS and event.token <= before.token:
            found.append(f"I4: {event.kind} did not raise the token above {before.token}")
    if [event.seq for event in history] != list(range(1, job.event_seq + 1)):
        found.append(f"I8: event numbers have gaps or doubles below {job.event_seq}")
    return found


def _attempt_violations(job: jobs.Job, attempts: list[jobs.Attempt]) -> list[str]:
    running = [attempt.token for attempt in attempts if attempt.state is AttemptState.RUNNING]
    expected = [job.token] if job.state in ON_A_WORKER else []
    return [] if running == expected else [f"I9: attempts {running} count as running, expected {expected}"]


def _checkpoint_violations(job: jobs.Job, checkpoints: list[jobs.Checkpoint]) -> list[str]:
    found = []
    by_commit = sorted((row for row in checkpoints if row.state != "corrupt"), key=lambda row: row.ordinal)
    steps = [row.step for row in by_commit if row.state == "committed"]
    if steps != sorted(set(steps)):
        found.append(f"I5: committed steps {steps} do not increase")
    newest = max(steps, default=-1)
    if newest != job.checkpoint_step:
        found.append(f"I5: the job's step is {job.checkpoint_step}, its newest checkpoint's {newest}")
    return found
