"""Which workers are alive, what they consume, and which devices may be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.db import tables as t
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """What a worker says of itself at every heartbeat."""

    id: str
    host: str
    boot_id: str
    pid: int
    slots: int
    queues: Sequence[str]
    is_draining: bool = False
    is_disk_full: bool = False
    """It begins no attempt until something is deleted there."""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker as last heard of; `is_alive` by the database's clock."""

    id: str
    host: str
    boot_id: str
    pid: int
    slots: int
    queues: list[str]
    is_draining: bool
    is_disk_full: bool
    is_alive: bool
    versions: dict[str, str]
    start_time: datetime
    heartbeat_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the workers of a queue run at most, and could run more now; those not alive or draining do not count."""

    workers: int
    slots: int
    """Of the workers whose disks have room, like `free_slots`."""
    free_slots: int
    full_disks: int = 0
    """Workers that begin nothing until somebody frees space on their disks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An accelerator. Quarantined ones run nothing until a person releases them."""

    uuid: str
    host: str
    name: str
    memory_bytes: int
    is_quarantined: bool
    reason: str


def heartbeat(session: Session, info: WorkerInfo) -> None:
    """Insert or refresh a worker. Announces nothing: a heartbeat wakes nobody."""
    values = {
        "host": info.host,
        "boot_id": info.boot_id,
        "pid": info.pid,
        "state": "draining" if info.is_draining else "active",
        "slots": info.slots,
        "is_disk_full": info.is_disk_full,
        "queues": list(info.queues),
        "versions": dict(info.versions),
        "heartbeat_time": now(),
    }
    insert = insert_into(session.dialect, t.workers).values(id=info.id, start_time=now(), **values)
    session.execute(insert.on_conflict_do_update(index_elements=["id"], set_=values))


def leave(session: Session, *, worker_id: str, boot_id: str, pid: int) -> bool:
    """Drop a worker that ends in order, and return whether it was there; another process of its name stays."""
    mine = t.workers.c
    gone = sa.delete(t.workers).where(mine.id == worker_id, mine.boot_id == boot_id, mine.pid == pid)
    return session.execute(gone.returning(mine.id)).one_or_none() is not None


def list_workers(session: Session, *, alive_seconds: float = 60.0, known_seconds: float | None = None) -> list[Worker]:
    """Return the workers heard of within `known_seconds`, or ever, by id; alive are those within `alive_seconds`."""
    is_alive = (t.workers.c.heartbeat_time > now(-alive_seconds)).label("is_alive")
    query = sa.select(t.workers, is_alive).order_by(t.workers.c.id)
    if known_seconds is not None:
        query = query.where(t.workers.c.heartbeat_time > now(-known_seconds))
    found = []
    for row in session.execute(query):
        values = dict(row._mapping)
        values["is_draining"] = values.pop("state") == "draining"
        values["is_disk_full"] = bool(values["is_disk_full"])
        values["is_alive"] = bool(values["is_alive"])
        found.append(Worker(**values))
    return found


def capacity(session: Session, queue: str, *, alive_seconds: float = 60.0) -> Capacity:
    """Return what the workers of a queue could run."""
    workers = [w for w in list_workers(session, alive_seconds=alive_seconds) if w.is_alive and not w.is_draining]
    mine = [w for w in workers if queue in w.queues]
    able = [w for w in mine if not w.is_disk_full]
    slots = sum(w.slots for w in able)
    busy = sa.select(sa.func.count()).where(t.IS_RUNNING, t.jobs.c.lease_owner.in_([w.id for w in able]))
    free = max(0, slots - int(session.execute(busy).scalar_one()))
    return Capacity(workers=len(mine), slots=slots, free_slots=free, full_disks=len(mine) - len(able))


def forget(session: Session, *, older_than_seconds: float) -> int:
    """Drop workers not heard of for long, and return how many."""
    gone = sa.delete(t.workers).where(t.workers.c.heartbeat_time < now(-older_than_seconds))
    return len(session.execute(gone.returning(t.workers.c.id)).all())


def register_device(session: Session, *, uuid: str, host: str, name: str, memory_bytes: int) -> Device:
    """Insert or refresh a device, and return it with its quarantine, which a restart does not lift."""
    values = {"host": host, "name": name, "memory_bytes": memory_bytes, "update_time": now()}
    insert = insert_into(session.dialect, t.devices).values(uuid=uuid, state="ok", reason="", **values)
    kept = insert.on_conflict_do_update(index_elements=["uuid"], set_=values)
    return _to_device(session.execute(kept.returning(*_DEVICE_COLUMNS)).one())


def quarantine(session: Session, uuid: str, reason: str) -> None:
    """Keep a faulty device out of use. Safe to repeat."""
    _set_device(session, uuid, {"state": "quarantined", "reason": reason})


def release(session: Session, uuid: str) -> None:
    """Let a quarantined device be used again. Safe to repeat."""
    _set_device(session, uuid, {"state": "ok", "reason": ""})


def list_devices(session: Session, *, host: str | None = None) -> list[Device]:
    """Return devices by host and uuid."""
    query = sa.select(*_DEVICE_COLUMNS).order_by(t.devices.c.host, t.devices.c.uuid)
    if host is not None:
        query = query.where(t.devices.c.host == host)
    return [_to_device(row) for row in session.execute(query)]


_DEVICE_COLUMNS = [t.devices.c[name] for name in ("uuid", "host", "name", "memory_bytes", "state", "reason")]


def _set_device(session: Session, uuid: str, values: Mapping[str, Any]) -> None:
    session.execute(sa.update(t.devices).where(t.devices.c.uuid == uuid).values(**values, update_time=now()))


def _to_device(row: sa.Row[Any]) -> Device:
    values = dict(row._mapping)
    values["is_quarantined"] = values.pop("state") == "quarantined"
    return Device(**values)
