"""Rows with everything irrelevant filled in."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy.orm import Session

from services.core.ids import new_id
from services.db import datasets, jobs
from services.db.database import Database


def make_dataset(session: Session, *, project: str = "default", dataset_id: str = "digits") -> datasets.DatasetVersion:
    return datasets.insert(session, new_dataset(project=project, dataset_id=dataset_id))[0]


def new_dataset(**changes: Any) -> datasets.NewDatasetVersion:
    version_id = new_id()
    values: dict[str, Any] = {
        "id": version_id,
        "project": "default",
        "dataset_id": "digits",
        "request_id": version_id,
        "request_sha256": sha256("dataset"),
        "family": "detection",
        "format": "coco",
        "classes": ["one", "two"],
        "counts": {"train": {"images": 4, "boxes": 9}},
        "manifest_key": f"datasets/{version_id}/manifest.json",
        "manifest_sha256": sha256(version_id),
        "size_bytes": 1234,
        "report": {},
    }
    return datasets.NewDatasetVersion(**{**values, **changes})


def new_job(dataset_version_id: str, **changes: Any) -> jobs.NewJob:
    values: dict[str, Any] = {
        "project": "default",
        "request_id": new_id(),
        "request_sha256": sha256("job"),
        "recipe": "detection/yolo_v1",
        "preset": "tiny",
        "dataset_version_id": dataset_version_id,
        "spec": {"config": {"limits": {"max_steps": 10}}},
        "queue": "train.cpu",
        "model_id": "digits-yolo",
    }
    return jobs.NewJob(**{**values, **changes})


def make_job(session: Session, dataset_version_id: str, **changes: Any) -> jobs.Job:
    return jobs.insert(session, new_job(dataset_version_id, **changes))[0]


def queued_job(database: Database, **changes: Any) -> jobs.Job:
    """Store a job, and first its dataset, each in a transaction of its own."""
    project = changes.get("project", "default")
    with database.write() as session:
        dataset = make_dataset(session, project=project)
    with database.write() as session:
        return make_job(session, dataset.id, **changes)


def new_checkpoint(step: int, **changes: Any) -> jobs.NewCheckpoint:
    values: dict[str, Any] = {
        "step": step,
        "prefix": f"checkpoints/{step}/",
        "manifest_sha256": sha256(str(step)),
        "size_bytes": 10,
    }
    return jobs.NewCheckpoint(**{**values, **changes})


def new_model_version(**changes: Any) -> jobs.NewModelVersion:
    version_id = new_id()
    values: dict[str, Any] = {
        "id": version_id,
        "checkpoint_id": None,
        "config": {"depth": 4},
        "metrics": {"eval/ap50": 0.5},
        "bundle_prefix": f"models/{version_id}/",
        "bundle_sha256": sha256(version_id),
        "size_bytes": 99,
    }
    return jobs.NewModelVersion(**{**values, **changes})


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
