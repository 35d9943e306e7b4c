"""Rows of galleries with everything irrelevant filled in."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from services.core.ids import new_id
from services.core.states import JobState
from services.db import archives, deployments, galleries, identities, jobs, models
from services.db.database import Database
from services.db.deployments import NewDeployment, Observed
from services.db.galleries import Gallery, NewGallery
from services.db.identities import Image, NewIdentity
from services.db.models import ModelVersion
from services.storage import layout
from tests.stack.builders import new_model_version, queued_job, sha256

LIMIT = 1000

PARITY = {
    "scores": 0.0014,
    "lost": 0.0,
    "milliseconds": 12.4,
    "forms": [
        {"form": "aoti_bf16", "reason": "this processor has no bf16 instructions"},
        {"form": "export", "differences": {"scores": 0.0014, "lost": 0.0}, "milliseconds": 15.25},
        {"form": "eager", "differences": {"scores": 0.0014, "lost": 0.0}, "milliseconds": 12.4},
    ],
}
"""What the gate found of the archives, as a build reports it."""


def trained(database: Database, **changes: Any) -> ModelVersion:
    """Store a model version as a succeeded job leaves it."""
    job = queued_job(database, **{"recipe": "face/siamese", "model_id": "faces", **changes})
    new = new_model_version()
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new)
    with database.read() as session:
        return models.get_by_id(session, new.id)


def deployed(database: Database, version: ModelVersion, deployment_id: str = "faces") -> None:
    new = NewDeployment(
        project=version.project,
        deployment_id=deployment_id,
        request_id=new_id(),
        request_sha256=sha256("deployment"),
        model_version_id=version.id,
        target="cpu-t1",
    )
    with database.write() as session:
        deployments.insert(session, new)


def report(database: Database, url: str, deployment_id: str = "faces") -> None:
    """Build a deployment's archive and report a ready replica of it, as worker and agent do."""
    with database.write() as session:
        made = deployments.get(session, "default", deployment_id)
        digest = made.archive.sha256
        if digest is None:
            lease = archives.claim(session, made.archive.id, worker_id="w", ttl_seconds=60)
            digest = sha256(made.archive.id)
            archives.finish_ready(session, lease, key="k", sha256=digest, size_bytes=9, form="eager", parity=PARITY)
        deployments.report_replica(
            session,
            f"agent-{deployment_id}",
            inference_url=url,
            grpc_address="127.0.0.1:1",
            token="let-me-in",
            token_expire_time=None,
            observed=[Observed(made.id, digest, True)],
        )


def new_gallery(version: ModelVersion, **changes: Any) -> NewGallery:
    values: dict[str, Any] = {
        "project": version.project,
        "gallery_id": "staff",
        "request_id": new_id(),
        "request_sha256": sha256("gallery"),
        "deployment_id": "faces",
        "model_version_id": version.id,
        "keep_images": True,
    }
    return NewGallery(**{**values, **changes})


def make_gallery(database: Database, version: ModelVersion, **changes: Any) -> Gallery:
    with database.write() as session:
        return galleries.insert(session, new_gallery(version, **changes))[0]


def vector(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def new_identity(identity_id: str = "ada", **changes: Any) -> NewIdentity:
    values: dict[str, Any] = {
        "id": new_id(),
        "identity_id": identity_id,
        "request_id": new_id(),
        "request_sha256": sha256(identity_id),
        "display_name": identity_id.title(),
        "image_count": 2,
        "vector": vector(1.0, 0.0),
    }
    return NewIdentity(**{**values, **changes})


def image(gallery: Gallery, identity_uid: str, content: bytes = b"face", **changes: Any) -> Image:
    image_id = new_id()
    values: dict[str, Any] = {
        "id": image_id,
        "key": layout.identity_image(gallery.project, gallery.id, identity_uid, image_id),
        "size_bytes": len(content),
        "sha256": sha256(content.decode("latin-1")),
        "landmarks": [],
    }
    return Image(**{**values, **changes})


def enrol(
    database: Database, gallery: Gallery, identity_id: str = "ada", *, contents: Sequence[bytes] = (), **changes: Any
) -> identities.Identity:
    """Store an identity, with an image for each of `contents`."""
    replace_existing = changes.pop("replace_existing", False)
    new = new_identity(identity_id, **changes)
    images = [image(gallery, new.id, content) for content in contents]
    stored = new_identity(**{**{name: getattr(new, name) for name in NewIdentity.__slots__}, "images": images})
    with database.write() as session:
        return identities.enrol(session, gallery, stored, replace_existing=replace_existing, limit=LIMIT)[0]
