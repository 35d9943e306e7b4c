"""Deployments: what people want served, what agents say is served, and the state that follows from both.

A deployment's state is never stored. A deleted one stays as a row until no live agent reports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from services.core.errors import (
    AlreadyExists,
    DeploymentNotFound,
    IdempotencyConflict,
    ModelNotFound,
    PreconditionFailed,
)
from services.core.ids import new_id
from services.core.states import ArchiveState, DeploymentState
from services.db import archives
from services.db import tables as t
from services.db.archives import Archive
from services.db.changes import announce
from services.db.paging import Key, newest_first
from services.db.records import columns_of, values_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into

_UNSAID = 0
"""A deployment's first generation is 1. Agents from before they were told it say this while an upgrade rolls."""

ALIVE_SECONDS = 45.0
"""An agent that has not reported for this long counts as gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeployment:
    """What a request asks to serve; `target` names the kind of archive the agents need, such as cpu-t1."""

    project: str
    deployment_id: str
    request_id: str
    request_sha256: str
    model_version_id: str
    target: str
    workers: int = 1


class Observed(NamedTuple):
    """What an agent sees of one deployment in its TorchServe."""

    deployment_uid: str
    archive_sha256: str
    is_ready: bool
    message: str = ""
    is_failed: bool = False
    generation: int = _UNSAID
    """Of the deployment, when it failed; a report of what does not fail need not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One TorchServe that a live agent reports for a deployment, and how to call it."""

    agent_id: str
    inference_url: str
    grpc_address: str
    token: str
    token_expire_time: datetime | None
    archive_sha256: str
    is_ready: bool
    is_failed: bool
    generation: int
    message: str
    report_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model version made callable, with everything known about it; `id` is the uid agents report."""

    id: str
    project: str
    deployment_id: str
    model_version_id: str
    model_id: str
    version: int
    workers: int
    generation: int
    state: DeploymentState
    message: str
    archive: Archive
    replicas: tuple[Replica, ...]
    create_time: datetime
    update_time: datetime
    etag: str

    @property
    def model_name(self) -> str:
        return model_name(self.project, self.deployment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What an agent is to serve: a verified archive under a name, with so many workers."""

    deployment_uid: str
    project: str
    deployment_id: str
    model_name: str
    model_version_id: str
    workers: int
    generation: int
    archive_id: str
    archive_key: str
    archive_sha256: str
    archive_size_bytes: int


def model_name(project: str, deployment_id: str) -> str:
    """Return the name a deployment has inside TorchServe."""
    return f"{project}--{deployment_id}"


def insert(session: Session, new: NewDeployment) -> tuple[Deployment, bool]:
    """Store a deployment and queue the build of its archive; a failed build is tried again.

    The second value is False where the same request stored it before. Safe to call again.

    Raises:
        IdempotencyConflict: the request_id belongs to a request with another hash.
        AlreadyExists: another request took the deployment_id.
        ModelNotFound: the project has no such model version.
    """
    announce(session)
    _check_model(session, new.project, new.model_version_id)
    archive = _archive_for(session, new.model_version_id, new.target)
    statement = insert_into(session.dialect, t.deployments).values(
        id=new_id(),
        archive_id=archive.id,
        generation=1,
        create_time=now(),
        update_time=now(),
        **values_of(new, t.deployments),
    )
    row = session.execute(statement.on_conflict_do_nothing().returning(t.deployments.c.id)).one_or_none()
    if row is None:
        _check_replay(session, new)
    return get(session, new.project, new.deployment_id), row is not None


def update(
    session: Session, project: str, deployment_id: str, *, model_version_id: str, target: str, workers: int
) -> Deployment:
    """Ask for another version or number of workers; the archive served now stays until the new one is ready.

    Raises:
        DeploymentNotFound: the project has no such deployment.
        ModelNotFound: the project has no such model version.
        PreconditionFailed: it is being deleted.
    """
    announce(session)
    _check_model(session, project, model_version_id)
    wanted = _archive_for(session, model_version_id, target)
    mine = t.deployments.c
    ready = sa.select(t.archives.c.id).where(t.archives.c.id == mine.archive_id, t.archives.c.state == "ready")
    kept = sa.func.coalesce(ready.scalar_subquery(), mine.previous_archive_id)
    statement = (
        sa.update(t.deployments)
        .where(mine.project == project, mine.deployment_id == deployment_id, mine.delete_time.is_(None))
        .values(
            model_version_id=model_version_id,
            previous_archive_id=sa.case((mine.archive_id == wanted.id, mine.previous_archive_id), else_=kept),
            archive_id=wanted.id,
            workers=workers,
            generation=mine.generation + 1,
            update_time=now(),
        )
        .returning(mine.id)
    )
    is_updated = session.execute(statement).one_or_none() is not None
    deployment = get(session, project, deployment_id)
    if not is_updated:
        raise PreconditionFailed(f"deployment {deployment_id!r} is being deleted")
    return deployment


def get(session: Session, project: str, deployment_id: str, *, alive_seconds: float = ALIVE_SECONDS) -> Deployment:
    """Return one deployment, also while it is being deleted.

    Raises:
        DeploymentNotFound: the project has no such deployment.
    """
    query = _query().where(t.deployments.c.project == project, t.deployments.c.deployment_id == deployment_id)
    found = _load(session, query, alive_seconds)
    if not found:
        raise DeploymentNotFound(f"project {project!r} has no deployment {deployment_id!r}")
    return found[0]


def page(
    session: Session,
    project: str,
    *,
    page_size: int,
    after: Key | None = None,
    alive_seconds: float = ALIVE_SECONDS,
) -> list[Deployment]:
    """Return up to `page_size` deployments, newest first, after the (create_time, id) of the last one seen."""
    query = _query().where(t.deployments.c.project == project)
    return _load(session, newest_first(query, t.deployments, page_size=page_size, after=after), alive_seconds)


def delete(session: Session, project: str, deployment_id: str) -> Deployment:
    """Ask for a deployment to go, and return it as DELETING; it is gone once no live agent reports it.

    A second call changes nothing while it is going.

    Raises:
        DeploymentNotFound: the project has no such deployment.
    """
    announce(session)
    mine = t.deployments.c
    statement = sa.update(t.deployments).where(
        mine.project == project, mine.deployment_id == deployment_id, mine.delete_time.is_(None)
    )
    session.execute(statement.values(delete_time=now(), update_time=now()))
    deployment = get(session, project, deployment_id)
    remove_deleted(session)
    return deployment


def remove_deleted(session: Session, *, alive_seconds: float = ALIVE_SECONDS) -> int:
    """Drop deleted deployments that no live agent reports, and return how many."""
    is_reported = sa.exists().where(
        t.replicas.c.deployment_uid == t.deployments.c.id,
        t.replicas.c.agent_id == t.agents.c.id,
        t.agents.c.report_time > now(-alive_seconds),
    )
    gone = sa.delete(t.deployments).where(t.deployments.c.delete_time.is_not(None), ~is_reported)
    count = len(session.execute(gone.returning(t.deployments.c.id)).all())
    if count:
        announce(session)
    return count


def desired(session: Session) -> list[Desired]:
    """Return what every agent is to serve: deployments not deleted, with the newest archive they have ready."""
    wanted, previous = t.archives.alias("wanted"), t.archives.alias("previous")
    is_ready = wanted.c.state == "ready"
    pick = {
        name: sa.case((is_ready, wanted.c[name]), else_=previous.c[name]).label(f"archive_{name}")
        for name in ("id", "key", "sha256", "size_bytes")
    }
    version = sa.case((is_ready, wanted.c.model_version_id), else_=previous.c.model_version_id)
    mine = t.deployments.c
    query = (
        sa.select(
            mine.id.label("deployment_uid"),
            mine.project,
            mine.deployment_id,
            mine.workers,
            mine.generation,
            version.label("model_version_id"),
            *pick.values(),
        )
        .join_from(t.deployments, wanted, mine.archive_id == wanted.c.id)
        .outerjoin(previous, mine.previous_archive_id == previous.c.id)
        .where(mine.delete_time.is_(None), sa.or_(is_ready, previous.c.state == "ready"))
        .order_by(mine.create_time, mine.id)
    )
    return [
        Desired(**row._mapping, model_name=model_name(row.project, row.deployment_id)) for row in session.execute(query)
    ]


def report_replica(
    session: Session,
    agent_id: str,
    *,
    inference_url: str,
    grpc_address: str,
    token: str,
    token_expire_time: datetime | None,
    observed: Iterable[Observed | tuple[str, str, bool, str]],
) -> None:
    """Replace what is known of one agent's TorchServe by what it sees now: all of it, every time.

    Deployments this database does not know are ignored. A deleted deployment that nobody reports any
    more goes with this call. Safe to repeat.
    """
    agent = {
        "inference_url": inference_url,
        "grpc_address": grpc_address,
        "token": token,
        "token_expire_time": token_expire_time,
        "report_time": now(),
    }
    insert_agent = insert_into(session.dialect, t.agents).values(id=agent_id, **agent)
    session.execute(insert_agent.on_conflict_do_update(index_elements=["id"], set_=agent))
    reported = {item.deployment_uid: item for item in (Observed(*values) for values in observed)}
    # FOR KEY SHARE: a deployment that goes at this moment does so before or after, not in between.
    known = sa.select(t.deployments.c.id).where(t.deployments.c.id.in_(reported))
    uids = set(session.execute(known.with_for_update(read=True, key_share=True)).scalars())
    now_seen = {reported[uid] for uid in uids}
    mine = t.replicas.c.agent_id == agent_id
    columns = [t.replicas.c[name] for name in Observed._fields]
    if now_seen != {Observed(*row) for row in session.execute(sa.select(*columns).where(mine))}:
        session.execute(sa.delete(t.replicas).where(mine))
        rows = [{"agent_id": agent_id, **item._asdict()} for item in now_seen]
        if rows:
            session.execute(sa.insert(t.replicas), rows)
        announce(session)
    remove_deleted(session)


def forget_agents(session: Session, *, older_than_seconds: float) -> int:
    """Drop agents that have not reported for long, and return how many."""
    gone = sa.delete(t.agents).where(t.agents.c.report_time < now(-older_than_seconds))
    return len(session.execute(gone.returning(t.agents.c.id)).all())


def derive_state(
    *,
    is_deleted: bool,
    archive: Archive,
    replicas: Sequence[Replica],
    generation: int,
    builds_before: int | None = None,
) -> tuple[DeploymentState, str]:
    """Return a deployment's state and its message, from its archive and the live replicas.

    A failure counts for the generation it was seen at: what was asked for again since is being tried again.
    """
    if is_deleted:
        return DeploymentState.DELETING, ""
    unbuilt = {
        ArchiveState.BUILDING: DeploymentState.BUILDING,
        ArchiveState.FAILED: DeploymentState.FAILED,
    }
    if archive.state is ArchiveState.QUEUED:
        return DeploymentState.PENDING, "; ".join(filter(None, (archive.message.rstrip("."), _place(builds_before))))
    if archive.state in unbuilt:
        return unbuilt[archive.state], archive.message
    current = [replica for replica in replicas if replica.archive_sha256 == archive.sha256]
    if any(replica.is_ready for replica in current):
        return DeploymentState.READY, ""
    failed = [replica for replica in current if replica.is_failed and replica.generation in (_UNSAID, generation)]
    if failed:
        return DeploymentState.FAILED, failed[0].message
    words = (replica.message for replica in current if replica.message and not replica.is_failed)
    return DeploymentState.STARTING, next(words, "")


def _place(builds_before: int | None) -> str:
    if builds_before is None:
        return ""
    if builds_before == 0:
        return "its build is next"
    return f"its build waits for {builds_before} before it"


def _check_model(session: Session, project: str, model_version_id: str) -> None:
    version = t.model_versions.c
    query = sa.select(version.id).where(version.id == model_version_id, version.project == project)
    # Before its archive is touched, in the order of a deletion.
    if session.execute(query.with_for_update(read=True, key_share=True)).one_or_none() is None:
        raise ModelNotFound(f"project {project!r} has no model version {model_version_id!r}")


def _archive_for(session: Session, model_version_id: str, target: str) -> Archive:
    archive = archives.ensure(session, model_version_id, target)
    if archive.state is ArchiveState.FAILED:
        archives.retry(session, archive.id)
    elif archive.state is ArchiveState.QUEUED:
        archives.want_again(session, archive.id)
    return archive


def _check_replay(session: Session, new: NewDeployment) -> None:
    """Return if the row in the way is this very request's."""
    mine = t.deployments.c
    query = sa.select(mine.request_sha256).where(mine.project == new.project, mine.request_id == new.request_id)
    sha256 = session.execute(query).scalar_one_or_none()
    if sha256 is None:
        raise AlreadyExists(f"project {new.project!r} has a deployment {new.deployment_id!r} already")
    if sha256 != new.request_sha256:
        raise IdempotencyConflict


def _query() -> sa.Select[Any]:
    version = t.model_versions.c
    return (
        sa.select(
            *columns_of(Deployment, t.deployments),
            t.deployments.c.delete_time,
            version.model_id,
            version.version,
            *(column.label(f"archive_{column.name}") for column in archives.COLUMNS),
        )
        .join_from(t.deployments, t.model_versions, t.deployments.c.model_version_id == version.id)
        .join(t.archives, t.deployments.c.archive_id == t.archives.c.id)
    )


def _load(session: Session, query: sa.Select[Any], alive_seconds: float) -> list[Deployment]:
    rows = session.execute(query).all()
    replicas = _replicas(session, [row.id for row in rows], alive_seconds)
    is_waiting = any(row.archive_state == ArchiveState.QUEUED for row in rows)
    line = archives.line(session) if is_waiting else {}
    return [_to_deployment(row, tuple(replicas.get(row.id, ())), line.get(row.archive_id)) for row in rows]


def _replicas(session: Session, uids: Sequence[str], alive_seconds: float) -> dict[str, list[Replica]]:
    if not uids:
        return {}
    agent, replica = t.agents.c, t.replicas.c
    query = (
        sa.select(
            replica.deployment_uid,
            agent.id.label("agent_id"),
            *(agent[name] for name in ("inference_url", "grpc_address", "token", "token_expire_time", "report_time")),
            *(replica[name] for name in ("archive_sha256", "is_ready", "is_failed", "generation", "message")),
        )
        .join_from(t.replicas, t.agents, replica.agent_id == agent.id)
        .where(replica.deployment_uid.in_(uids), agent.report_time > now(-alive_seconds))
        .order_by(agent.id)
    )
    found: dict[str, list[Replica]] = {}
    for row in session.execute(query):
        values = dict(row._mapping)
        found.setdefault(values.pop("deployment_uid"), []).append(Replica(**values))
    return found


def _to_deployment(row: sa.Row[Any], replicas: tuple[Replica, ...], builds_before: int | None) -> Deployment:
    values = dict(row._mapping)
    built = {name.removeprefix("archive_"): values.pop(name) for name in list(values) if name.startswith("archive_")}
    archive = Archive(**{**built, "state": ArchiveState(built["state"])})
    is_deleted = values.pop("delete_time") is not None
    generation = values["generation"]
    state, message = derive_state(
        is_deleted=is_deleted, archive=archive, replicas=replicas, generation=generation, builds_before=builds_before
    )
    etag = f"{generation:x}"
    return Deployment(**values, state=state, message=message, archive=archive, replicas=replicas, etag=etag)
