"""Broken versions of the protocol, each of which the checker of its invariant must catch.

A mutant patches the product's own functions while the simulation runs; the more it is like a mistake
somebody could make, the better. `run` answers with rows for `chaos.json`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.core.ids import new_id
from services.core.states import AttemptState
from services.db import control, events, fence, garbage, jobs, leases, reaper, schedule, transitions
from services.db import tables as t
from services.db.job_records import Lease
from services.db.session import Session
from services.storage import layout
from tests.simulation import worker
from tests.simulation.plan import Fault, Plan
from tests.simulation.run import simulate

SEEDS = 32
_real = SimpleNamespace(
    write=events.write,
    ask=control._ask,
    returned=transitions._returned,
    insert=jobs.insert,
    finish=jobs.finish,
    events_after=jobs.events_after,
    close_attempt=transitions._close_attempt,
    renew=jobs.renew,
    dispatch=jobs.dispatch,
    append_events=jobs.append_events,
)
ANY_FAULT = Plan(seed=0, workers=3, controllers=2, jobs=5, projects=2, patience_seconds=900)
STEADY_CLOCK = replace(ANY_FAULT, faults=frozenset(Fault) - {Fault.CLOCK_JUMPS})
"""A clock set back delays retries by so much that a job which never ends would be told from it only after hours."""

Patches = Callable[[], list[Any]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake, the invariant that it breaks, and how to make it."""

    name: str
    invariant: str
    patches: Patches
    plan: Plan = STEADY_CLOCK

    def find(self, seeds: int = SEEDS) -> int | None:
        """Return the first seed at which the checker speaks of the mutant's invariant; None: it never does."""
        for seed in range(seeds):
            with self.applied():
                found = simulate(replace(self.plan, seed=seed)).violations
            if any(_code(text) == self.invariant for text in found):
                return seed
        return None

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for one in self.patches():
                stack.enter_context(one)
            yield


def run(*, seeds: int = SEEDS) -> list[dict[str, Any]]:
    """Return one row a mutant: name, invariant, whether the checker caught it, and at which seed."""
    rows = []
    for mutant in MUTANTS:
        seed = mutant.find(seeds)
        rows.append({"name": mutant.name, "invariant": mutant.invariant, "caught": seed is not None, "seed": seed})
    return rows


def _code(text: str) -> str:
    """Return the invariant that a violation names."""
    found = re.search(r"\b[IL]\d+(?=: )", text)
    return found.group() if found else ""


def _everything_but(*kinds: str) -> Callable[..., None]:
    """Write events, but forget those of some kinds."""

    def write(session: Session, job_id: str, lines: Sequence[events.Line]) -> None:
        _real.write(session, job_id, [line for line in lines if line[2] not in kinds])

    return write


def _numbered_for_all_jobs(session: Session, job_id: str, lines: Sequence[events.Line]) -> None:
    """Number events by one counter of the platform instead of the job's own."""
    count = session.execute(sa.select(sa.func.count()).select_from(t.events)).scalar_one()
    _real.write(session, job_id, [(count + number, *line[1:]) for number, line in enumerate(lines, start=1)])


def _held_by_anyone(lease: Lease) -> ColumnElement[bool]:
    return (t.jobs.c.id == lease.job_id) & t.IS_RUNNING


def _ask_whatever_the_state(
    session: Session, project: str, job_id: str, condition: ColumnElement[bool], values: dict[str, Any]
) -> Any:
    del condition
    return _real.ask(session, project, job_id, sa.true(), values)


def _returned_with_the_same_token(*arguments: Any) -> dict[str, Any]:
    return {**_real.returned(*arguments), "token": t.jobs.c.token}


def _row_before_objects(self: worker.Worker, attempt: worker.Attempt) -> None:
    while attempt.spooled:
        step, lease = attempt.spooled[0], attempt.lease
        prefix = layout.checkpoint_prefix(lease.project, lease.job_id, step, lease.token)
        body = f"{lease.job_id} {step}".encode()
        sha256 = worker.manifest_of(body).sha256()
        with self._database.write() as session:
            new = jobs.NewCheckpoint(step=step, prefix=prefix, manifest_sha256=sha256, size_bytes=1)
            jobs.commit_checkpoint(session, lease, new)
        attempt.saved_step = step
        attempt.spooled.pop(0)
        self._put_files(prefix, body)


def _insert_without_its_key(session: Session, new: jobs.NewJob) -> tuple[jobs.Job, bool]:
    return _real.insert(session, replace(new, request_id=new_id()))


def _finish_without_model(session: Session, lease: Lease, **outcome: Any) -> None:
    _real.finish(session, lease, **{**outcome, "model_version": None})


def _from_the_last_event_on(session: Session, job_id: str, after_seq: int, limit: int) -> list[jobs.Event]:
    return _real.events_after(session, job_id, max(0, after_seq - 1), limit)


def _open_when_lost(session: Session, lease: Lease, state: AttemptState, failure: Any) -> None:
    if state is not AttemptState.LOST:
        _real.close_attempt(session, lease, state, failure)


def _renew_for_a_moment(session: Session, lease: Lease, *, ttl_seconds: float) -> Any:
    return _real.renew(session, lease, ttl_seconds=ttl_seconds / 30)


def _dispatch_once(session: Session, *, window: int, redispatch_after_seconds: float) -> list[tuple[str, str]]:
    return _real.dispatch(session, window=window, redispatch_after_seconds=1e6 * redispatch_after_seconds)


def _append_without_position(session: Session, lease: Lease, lines: Any, **position: int) -> int:
    del position
    return _real.append_events(session, lease, lines)


def _head_with_running_ones(queue: str, project: str) -> sa.Select[Any]:
    of_project = (t.jobs.c.queue == queue) & (t.jobs.c.project == project)
    return sa.select(t.jobs.c.id).where(of_project, _CLAIMS_RUNNING_TOO).order_by(t.jobs.c.order_time)


_CLAIMS_RUNNING_TOO = sa.and_(t.jobs.c.state.in_(("queued", "running")), t.jobs.c.desired == "run")

MUTANTS = (
    Mutant(
        "the end of a job is not told",
        "I1",
        lambda: [patch.object(events, "write", _everything_but("succeeded", "failed", "cancelled"))],
    ),
    Mutant("writes are not held against the token", "I2", lambda: [patch.object(fence, "is_held", _held_by_anyone)]),
    Mutant(
        "a job that ended can be paused and resumed",
        "I3",
        lambda: [
            patch.object(control, "_ask", _ask_whatever_the_state),
            patch.object(control, "_in_one_of", lambda job, *_, **__: job),
        ],
    ),
    Mutant(
        "a job goes back to the queue with its token",
        "I4",
        lambda: [patch.object(transitions, "_returned", _returned_with_the_same_token)],
    ),
    Mutant(
        "a checkpoint's row comes before its objects",
        "I5",
        lambda: [patch.object(worker.Worker, "_upload", _row_before_objects)],
    ),
    Mutant(
        "a submission's request_id is not looked at",
        "I6",
        lambda: [patch.object(jobs, "insert", _insert_without_its_key)],
    ),
    Mutant("a success forgets its model", "I7", lambda: [patch.object(jobs, "finish", _finish_without_model)]),
    Mutant(
        "a checkpoint's event is forgotten",
        "I8",
        lambda: [patch.object(events, "write", _everything_but("checkpoint"))],
    ),
    Mutant(
        "events are numbered for all jobs together",
        "I8",
        lambda: [patch.object(events, "write", _numbered_for_all_jobs)],
    ),
    Mutant(
        "a stream goes on with the last event it sent",
        "I8",
        lambda: [patch.object(jobs, "events_after", _from_the_last_event_on)],
    ),
    Mutant(
        "the reaper leaves the attempt open",
        "I9",
        lambda: [patch.object(transitions, "_close_attempt", _open_when_lost)],
    ),
    Mutant(
        "a job that runs can be claimed",
        "I9",
        lambda: [
            patch.object(leases, "IS_CLAIMABLE", _CLAIMS_RUNNING_TOO),
            patch.object(schedule, "head", _head_with_running_ones),
        ],
    ),
    Mutant(
        "the collector spares what dead attempts left",
        "I10",
        lambda: [patch.object(garbage, "abandoned_attempts", lambda *_, **__: set())],
    ),
    Mutant(
        "the reaper trusts any clock",
        "L1",
        lambda: [patch.object(reaper.ClockGuard, "observe", lambda *_: True)],
        plan=ANY_FAULT,
    ),
    Mutant("a renewal hardly extends the lease", "L1", lambda: [patch.object(jobs, "renew", _renew_for_a_moment)]),
    Mutant("a message is never sent again", "L2", lambda: [patch.object(jobs, "dispatch", _dispatch_once)]),
    Mutant("a lost attempt is charged", "L3", lambda: [patch.object(transitions, "_uncharged", lambda *_: {})]),
    Mutant(
        "events whose answer got lost are written again",
        "L5",
        lambda: [patch.object(jobs, "append_events", _append_without_position)],
    ),
)
