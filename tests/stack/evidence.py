"""What a run knows beside its database, and the invariants that only show with it.

I5 (objects of checkpoints), I6 (acknowledged submissions), I7 (results), I8 (streams), I9 (processes) and
I10 (garbage). Each part left empty is not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from services.core.errors import PlatformError
from services.core.states import JobState
from services.db import jobs
from services.db import tables as t
from services.db.database import Database
from services.db.session import Session
from services.storage import layout
from services.storage.manifest import read_manifest
from services.storage.port import ObjectStore


@dataclass(frozen=True, slots=True)
class Submission:
    """A reply that acknowledged a job."""

    project: str
    request_id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Stream:
    """What one client saw of a job, over all its reconnects: sequence numbers and kinds of events."""

    job_id: str
    seen: Sequence[tuple[int, str]]
    is_complete: bool = True
    """Whether it was read to the end of the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything outside the database that a run can show."""

    submissions: Sequence[Submission] = ()
    streams: Sequence[Stream] = ()
    processes: Collection[tuple[str, int]] | None = None
    """(job id, token) of every trainer alive, a lease and five seconds after the last fault."""
    store: ObjectStore | None = None
    """After the collector ran, with everything old enough."""
    has_trained: bool = False
    """Whether a job that succeeded went through all its steps."""


def evidence_violations(database: Database, evidence: Evidence) -> list[str]:
    """Return what the evidence shows beyond the database; see `invariants.violations`."""
    with database.read() as session:
        return [
            *_lost_submissions(session, evidence.submissions),
            *(text for stream in evidence.streams for text in _stream_violations(session, stream)),
            *_strays(session, evidence.processes),
            *_result_violations(session, evidence),
            *([] if evidence.store is None else _orphans(session, evidence.store)),
            *([] if evidence.store is None else _broken_checkpoints(database, evidence.store)),
        ]


def _lost_submissions(session: Session, submissions: Sequence[Submission]) -> Iterator[str]:
    answers: dict[tuple[str, str], str] = {}
    query = sa.select(t.jobs.c.id, t.jobs.c.project, t.jobs.c.request_id)
    stored = {(row.project, row.request_id): row.id for row in session.execute(query)}
    for one in submissions:
        key = (one.project, one.request_id)
        if answers.setdefault(key, one.job_id) != one.job_id:
            yield f"I6: request {one.request_id} was answered with jobs {answers[key]} and {one.job_id}"
        if stored.get(key) != one.job_id:
            yield f"I6: request {one.request_id} was acknowledged as job {one.job_id}, stored is {stored.get(key)}"


def _stream_violations(session: Session, stream: Stream) -> Iterator[str]:
    table = [(event.seq, event.kind) for event in jobs.events_after(session, stream.job_id, 0, 1_000_000)]
    if list(stream.seen) != table[: len(stream.seen)]:
        yield f"job {stream.job_id}: I8: a stream differs from the table"
    elif stream.is_complete and len(stream.seen) != len(table):
        yield f"job {stream.job_id}: I8: a stream ended {len(table) - len(stream.seen)} events short"


def _strays(session: Session, processes: Collection[tuple[str, int]] | None) -> Iterator[str]:
    if processes is None:
        return
    query = sa.select(t.jobs.c.id, t.jobs.c.token).where(t.IS_RUNNING)
    running = {(row.id, row.token) for row in session.execute(query)}
    for job_id, token in sorted(set(processes) - running):
        yield f"job {job_id}: I9: a trainer of token {token} is alive, which is not the job's"


def _result_violations(session: Session, evidence: Evidence) -> Iterator[str]:
    if not evidence.has_trained:
        return
    version = t.model_versions.c
    for project, job_id in session.execute(sa.select(t.jobs.c.project, t.jobs.c.id)).all():
        job = jobs.get(session, project, job_id)
        if job.state is not JobState.SUCCEEDED:
            continue
        last_step = job.spec["config"]["limits"]["max_steps"]
        if job.checkpoint_step != last_step:
            yield f"job {job_id}: I7: succeeded at step {job.checkpoint_step} of {last_step}"
        made = session.execute(sa.select(t.model_versions).where(version.job_id == job_id)).all()
        if job.model_version not in [row.version for row in made]:
            yield f"job {job_id}: I7: succeeded without its model version"
        for row in made:
            if evidence.store is not None and (why := _flaw(evidence.store, row.bundle_prefix, row.bundle_sha256)):
                yield f"job {job_id}: I7: the bundle of its model is not whole: {why}"


def _broken_checkpoints(database: Database, store: ObjectStore) -> Iterator[str]:
    row = t.checkpoints.c
    query = sa.select(row.id, row.job_id, row.step, row.prefix, row.manifest_sha256).where(row.state == "committed")
    with database.read() as session:
        committed = session.execute(query).all()
    flaws = {one.id: why for one in committed if (why := _flaw(store, one.prefix, one.manifest_sha256))}
    # Retention may go on meanwhile. It hides a checkpoint before its objects go, so one that is still there must be whole.
    with database.read() as session:
        left = {one.id for one in session.execute(query)}
    for one in committed:
        if one.id in flaws and one.id in left:
            yield f"job {one.job_id}: I5: checkpoint {one.step} is committed but not whole: {flaws[one.id]}"


def _orphans(session: Session, store: ObjectStore) -> Iterator[str]:
    prefixes = set(session.execute(sa.select(t.checkpoints.c.prefix)).scalars())
    prefixes |= set(session.execute(sa.select(t.model_versions.c.bundle_prefix)).scalars())
    keys = set(session.execute(sa.select(t.artifacts.c.key)).scalars())
    keys |= set(session.execute(sa.select(t.archives.c.key)).scalars())
    datasets = set(session.execute(sa.select(t.dataset_versions.c.manifest_key)).scalars())
    prefixes |= {key.removesuffix(layout.MANIFEST) for key in datasets if key.endswith("/" + layout.MANIFEST)}
    for info in store.list("projects/"):
        if info.key not in keys and not _folders(info.key) & prefixes:
            yield f"I10: {info.key} belongs to no row"


def _folders(key: str) -> set[str]:
    parts = key.split("/")
    return {"/".join(parts[:count]) + "/" for count in range(1, len(parts))}


def _flaw(store: ObjectStore, prefix: str, manifest_sha256: str) -> str:
    try:
        for name, entry in read_manifest(store, prefix, manifest_sha256).files.items():
            store.get(prefix + name, sha256=entry.sha256)
    except PlatformError as err:
        return str(err)
    return ""
