"""What a platform of the first release left in its database: rows of every table, as revision 0001 had them.

Written out here, and not by today's stores: those write what today's schema wants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.db.types import Document, UtcTime

REVISION = "0001"
BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = (f"01job{number:021d}" for number in range(5))
DATASET, OLD_DATASET = "01set" + "0" * 21, "01set" + "1" * 21
CHECKPOINT, MODEL, ARCHIVE, DEPLOYMENT = (f"01{name}{'0' * 21}" for name in ("chk", "mod", "arc", "dep"))

Row = Mapping[str, Any]


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(connection: sa.Connection) -> None:
    """Insert everything into a database at revision 0001 and commit."""
    for name, rows in TABLES.items():
        for row in rows:
            columns = [sa.column(key) for key in row]
            values = {key: _bound(value) for key, value in row.items()}
            connection.execute(sa.table(name, *columns).insert().values(values))
    connection.commit()


def read(connection: sa.Connection) -> dict[str, list[Row]]:
    """Return all that `write` wrote, as the database holds it, in a fixed order."""
    found = {}
    for name, rows in TABLES.items():
        columns = [sa.column(key) for key in rows[0]]
        keys = [sa.column(key) for key in KEYS[name]]
        query = sa.select(*columns).select_from(sa.table(name)).order_by(*keys)
        found[name] = [dict(row) for row in connection.execute(query).mappings()]
    return found


def _bound(value: Any) -> Any:
    if isinstance(value, datetime):
        return sa.literal(value, UtcTime())
    return sa.literal(value, Document()) if isinstance(value, dict | list) else value


def _dataset_version(version_id: str, version: int, delete_time: datetime | None) -> Row:
    return {
        "id": version_id,
        "project": "default",
        "dataset_id": "digits",
        "version": version,
        "request_id": f"import-{version}",
        "request_sha256": digest(version_id),
        "family": "detection",
        "format": "coco",
        "classes": ["zero", "one"],
        "counts": {"train": {"images": 8, "boxes": 20}, "val": {"images": 2, "boxes": 5}},
        "manifest_key": f"projects/default/datasets/digits/{version_id}/manifest.json",
        "manifest_sha256": digest(f"manifest {version}"),
        "size_bytes": 5_000_000_000,
        "report": {"warnings": ["two boxes overlap \N{SNOWMAN}"]},
        "create_time": at(version),
        "delete_time": delete_time,
        "purge_time": None,
    }


def _job(job_id: str, state: str, **changes: Any) -> Row:
    return {
        "id": job_id,
        "project": "default",
        "request_id": f"submit-{job_id}",
        "request_sha256": digest(job_id),
        "recipe": "detection/yolo_v1",
        "preset": "tiny",
        "display_name": f"the {state} one",
        "labels": {"team": "vision"},
        "dataset_version_id": DATASET,
        "dataset_id": "digits",
        "model_id": "digits",
        "spec": {
            "recipe": "detection/yolo_v1",
            "preset": "tiny",
            "config": {"limits": {"max_steps": 720}, "optim": {"lr": 0.005}},
            "dataset": {"name": "projects/default/datasets/digits", "version_id": DATASET},
            "resources": {"class": "cpu", "processes": 1},
            "init_from": None,
            "max_attempts": 3,
        },
        "queue": "train.cpu",
        "priority": 0,
        "state": state,
        "desired": "run",
        "attempt": 0,
        "max_attempts": 3,
        "uncharged_restarts": 0,
        "no_progress": 0,
        "token": 0,
        "lease_owner": None,
        "lease_expire_time": None,
        "not_before_time": None,
        "dispatch_time": None,
        "checkpoint_step": -1,
        "checkpoint_id": None,
        "checkpoint_count": 0,
        "model_version": None,
        "failure_reason": None,
        "failure_message": None,
        "failure_log": None,
        "progress_step": 0,
        "progress_total": 0,
        "event_seq": 1,
        "create_time": at(10 + int(job_id[5:])),
        "start_time": None,
        "end_time": None,
        "update_time": at(60),
        **changes,
    }


def _event(job_id: str, seq: int, kind: str, payload: Row, token: int = 0) -> Row:
    return {
        "job_id": job_id,
        "seq": seq,
        "token": token,
        "kind": kind,
        "payload": dict(payload),
        "create_time": at(20 + seq),
    }


def _attempt(job_id: str, state: str, end_time: datetime | None, **changes: Any) -> Row:
    return {
        "job_id": job_id,
        "token": 1,
        "attempt": 1,
        "worker_id": "worker-1",
        "state": state,
        "host": "node-1",
        "boot_id": "7e0e3c5e-1111-2222-3333-444455556666",
        "pid": 4711,
        "pid_start": 1234.56,
        "device": "cpu",
        "failure_reason": None,
        "failure_message": None,
        "exit_code": None,
        "signal": None,
        "start_time": at(30),
        "end_time": end_time,
        **changes,
    }


_CREATED = {"recipe": "detection/yolo_v1", "preset": "tiny", "queue": "train.cpu"}
_CLAIMED = {"worker_id": "worker-1", "attempt": 1, "checkpoint_step": -1}

TABLES: dict[str, list[Row]] = {
    "datasets": [{"project": "default", "dataset_id": "digits", "last_version": 2}],
    "dataset_versions": [_dataset_version(OLD_DATASET, 1, at(5)), _dataset_version(DATASET, 2, None)],
    "jobs": [
        _job(QUEUED, "queued", priority=5),
        _job(
            RUNNING,
            "running",
            attempt=1,
            token=1,
            lease_owner="worker-1",
            lease_expire_time=at(90),
            progress_step=40,
            progress_total=720,
            event_seq=3,
            start_time=at(30),
        ),
        _job(
            SUCCEEDED,
            "succeeded",
            attempt=1,
            token=1,
            checkpoint_step=720,
            checkpoint_id=CHECKPOINT,
            checkpoint_count=2,
            model_version=1,
            progress_step=720,
            progress_total=720,
            event_seq=6,
            start_time=at(30),
            end_time=at(50),
        ),
        _job(
            FAILED,
            "failed",
            attempt=1,
            token=1,
            failure_reason="NON_FINITE_LOSS",
            failure_message="the loss is not finite",
            failure_log="Traceback ...\n",
            event_seq=3,
            start_time=at(30),
            end_time=at(50),
        ),
        _job(CANCELLED, "cancelled", desired="cancel", event_seq=2, end_time=at(50)),
    ],
    "attempts": [
        _attempt(RUNNING, "running", None),
        _attempt(SUCCEEDED, "succeeded", at(50), exit_code=0),
        _attempt(FAILED, "failed", at(50), exit_code=1, failure_reason="NON_FINITE_LOSS", failure_message="..."),
    ],
    "checkpoints": [
        {
            "id": checkpoint_id,
            "job_id": SUCCEEDED,
            "step": step,
            "token": 1,
            "ordinal": ordinal,
            "state": state,
            "prefix": f"projects/default/jobs/{SUCCEEDED}/checkpoints/{step:010d}-1/",
            "manifest_sha256": digest(f"checkpoint {step}"),
            "size_bytes": 3_017_459,
            "metric": metric,
            "files": [{"name": "model.safetensors", "size_bytes": 1_000_000, "sha256": digest("weights")}],
            "create_time": at(40 + ordinal),
        }
        for ordinal, (checkpoint_id, step, state, metric) in enumerate(
            [("01chk" + "1" * 21, 360, "corrupt", None), (CHECKPOINT, 720, "committed", 0.8125)], start=1
        )
    ],
    "events": [
        *(_event(job_id, 1, "created", _CREATED) for job_id in (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)),
        *(_event(job_id, 2, "claimed", _CLAIMED, 1) for job_id in (RUNNING, SUCCEEDED, FAILED)),
        _event(RUNNING, 3, "step", {"step": 40, "total": 720, "scalars": {"train/loss": 1.5}}, 1),
        _event(SUCCEEDED, 3, "step", {"step": 720, "total": 720, "scalars": {"train/loss": 0.5}}, 1),
        _event(SUCCEEDED, 4, "checkpoint", {"checkpoint_id": CHECKPOINT, "step": 720, "size_bytes": 3_017_459}, 1),
        _event(SUCCEEDED, 5, "model", {"model_id": "digits", "version": 1, "model_version_id": MODEL}, 1),
        _event(SUCCEEDED, 6, "succeeded", {"model_id": "digits", "version": 1}, 1),
        _event(FAILED, 3, "failed", {"reason": "NON_FINITE_LOSS", "message": "the loss is not finite"}, 1),
        _event(CANCELLED, 2, "cancelled", {"reason": "a typo"}),
    ],
    "artifacts": [
        {
            "id": "01art" + "0" * 21,
            "job_id": SUCCEEDED,
            "token": 1,
            "name": "curves.png",
            "kind": "curves",
            "key": f"projects/default/jobs/{SUCCEEDED}/artifacts/curves.png",
            "size_bytes": 4096,
            "sha256": digest("curves"),
            "step": 720,
            "content_type": "image/png",
            "create_time": at(49),
        }
    ],
    "models": [{"project": "default", "model_id": "digits", "last_version": 1}],
    "model_versions": [
        {
            "id": MODEL,
            "project": "default",
            "model_id": "digits",
            "version": 1,
            "job_id": SUCCEEDED,
            "checkpoint_id": CHECKPOINT,
            "recipe": "detection/yolo_v1",
            "config": {"limits": {"max_steps": 720}},
            "metrics": {"eval/ap50": 0.8125},
            "bundle_prefix": f"projects/default/models/digits/{MODEL}/bundle/",
            "bundle_sha256": digest("bundle"),
            "size_bytes": 2_000_000,
            "create_time": at(50),
        }
    ],
    "archives": [
        {
            "id": ARCHIVE,
            "model_version_id": MODEL,
            "target": "cpu-t1",
            "state": "ready",
            "attempt": 1,
            "token": 1,
            "lease_owner": None,
            "lease_expire_time": None,
            "not_before_time": None,
            "dispatch_time": at(51),
            "key": f"projects/default/models/digits/{MODEL}/archives/cpu-t1.mar",
            "sha256": digest("archive"),
            "size_bytes": 2_500_000,
            "form": "eager",
            "parity": {"largest": 1e-6},
            "message": "",
            "create_time": at(51),
            "update_time": at(52),
        }
    ],
    "deployments": [
        {
            "id": DEPLOYMENT,
            "project": "default",
            "deployment_id": "digits",
            "request_id": "deploy-1",
            "request_sha256": digest("deploy"),
            "model_version_id": MODEL,
            "archive_id": ARCHIVE,
            "previous_archive_id": None,
            "workers": 1,
            "generation": 1,
            "create_time": at(53),
            "update_time": at(53),
            "delete_time": None,
        }
    ],
    "agents": [
        {
            "id": "torchserve-1",
            "inference_url": "http://127.0.0.1:7080",
            "grpc_address": "127.0.0.1:7083",
            "token": "shown",
            "token_expire_time": None,
            "report_time": at(54),
        }
    ],
    "replicas": [
        {
            "agent_id": "torchserve-1",
            "deployment_uid": DEPLOYMENT,
            "archive_sha256": digest("archive"),
            "is_ready": True,
            "is_failed": False,
            "message": "",
        }
    ],
    "workers": [
        {
            "id": "worker-1",
            "host": "node-1",
            "boot_id": "7e0e3c5e-1111-2222-3333-444455556666",
            "pid": 4700,
            "state": "active",
            "slots": 1,
            "queues": ["train.cpu", "serve.build"],
            "versions": {"torch": "2.15.0"},
            "start_time": at(0),
            "heartbeat_time": at(59),
        }
    ],
    "devices": [
        {
            "uuid": "GPU-1",
            "host": "node-2",
            "name": "H200",
            "memory_bytes": 150_000_000_000,
            "state": "quarantined",
            "reason": "it fell off the bus",
            "update_time": at(3),
        }
    ],
    "outbox": [
        {
            "id": "01out" + "0" * 21,
            "kind": "delete_checkpoint",
            "key": "01chk" + "1" * 21,
            "payload": {"prefix": "gone/"},
            "tries": 1,
            "create_time": at(45),
            "not_before_time": at(75),
            "done_time": None,
        }
    ],
}

KEYS: dict[str, tuple[str, ...]] = {
    "datasets": ("project", "dataset_id"),
    "models": ("project", "model_id"),
    "attempts": ("job_id", "token"),
    "events": ("job_id", "seq"),
    "devices": ("uuid",),
    "replicas": ("agent_id", "deployment_uid"),
    **dict.fromkeys(
        (
            *("dataset_versions", "jobs", "checkpoints", "artifacts", "model_versions", "archives", "deployments"),
            *("agents", "workers", "outbox"),
        ),
        ("id",),
    ),
}
