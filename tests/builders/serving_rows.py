"""Rows of models, archives and deployments as their lives leave them."""

from __future__ import annotations

from typing import Any

from services.core.ids import new_id
from services.core.states import JobState
from services.db import archives, deployments, jobs, models
from services.db.database import Database
from services.db.deployments import NewDeployment
from tests.stack.builders import new_model_version, queued_job, sha256


def running(database: Database) -> jobs.Lease:
    job = queued_job(database)
    with database.write() as session:
        return jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)


def trained(database: Database) -> models.ModelVersion:
    lease = running(database)
    new = new_model_version()
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new)
    with database.read() as session:
        return models.get_by_id(session, new.id)


def built(database: Database, archive_id: str, *, name: str = "archive") -> None:
    with database.write() as session:
        lease = archives.claim(session, archive_id, worker_id="b", ttl_seconds=60)
        archives.finish_ready(
            session, lease, key=name, sha256=sha256(name), size_bytes=7, form="aoti", parity={"boxes": 0.0}
        )


def claimed(database: Database, model_version_id: str) -> archives.ArchiveLease:
    """Claim the build of an archive for a deployment that is deleted right after."""
    with database.write() as session:
        asks = new_deployment(model_version_id, deployment_id=f"asks-{new_id().lower()}")
        archive = deployments.insert(session, asks)[0].archive
        lease = archives.claim(session, archive.id, worker_id="b", ttl_seconds=60)
        deployments.delete(session, asks.project, asks.deployment_id)
        return lease


def new_deployment(model_version_id: str, **changes: Any) -> NewDeployment:
    values: dict[str, Any] = {
        "project": "default",
        "deployment_id": "reader",
        "request_id": new_id(),
        "request_sha256": sha256("deployment"),
        "model_version_id": model_version_id,
        "target": "cpu-t1",
    }
    return NewDeployment(**{**values, **changes})


def deployed(database: Database, model_version_id: str, **changes: Any) -> deployments.Deployment:
    with database.write() as session:
        return deployments.insert(session, new_deployment(model_version_id, **changes))[0]


def current(database: Database, deployment_id: str = "reader", **options: Any) -> deployments.Deployment:
    with database.read() as session:
        return deployments.get(session, "default", deployment_id, **options)
