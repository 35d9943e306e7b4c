"""The only builder of object keys. Ids come from the server; nothing a stranger wrote becomes a key."""

from __future__ import annotations

import re

from services.storage.port import check_key

MANIFEST = "manifest.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def project_prefix(project: str) -> str:
    return _prefix("projects", project)


def job_prefix(project: str, job_id: str) -> str:
    return _prefix("projects", project, "jobs", job_id)


def checkpoints_prefix(project: str, job_id: str) -> str:
    return _prefix("projects", project, "jobs", job_id, "checkpoints")


def checkpoint_prefix(project: str, job_id: str, step: int, token: int) -> str:
    """Return a prefix no other attempt can write: the fencing token is part of it."""
    return _prefix("projects", project, "jobs", job_id, "checkpoints", f"{step:010d}-{token}")


def artifact(project: str, job_id: str, name: str) -> str:
    """Return the key of an artifact; the caller puts into `name` what makes it unique within the job."""
    return check_key(f"{job_prefix(project, job_id)}artifacts/{_plain(name)}")


def datasets_prefix(project: str) -> str:
    return _prefix("projects", project, "datasets")


def dataset_prefix(project: str, dataset_id: str, version_id: str) -> str:
    return _prefix("projects", project, "datasets", dataset_id, version_id)


def bundle_prefix(project: str, model_id: str, version_id: str) -> str:
    return _prefix("projects", project, "models", model_id, version_id, "bundle")


def archive(project: str, model_id: str, version_id: str, target: str, *, sha256: str) -> str:
    """Return the key of a serving archive; the digest keeps two builds of one target apart."""
    return check_key(f"{_prefix('projects', project, 'models', model_id, version_id, 'archives', target)}{sha256}.mar")


def identity_prefix(project: str, gallery_uid: str, identity_uid: str) -> str:
    """Return where the kept images of one enrolment lie; uids only, for what people are called must not outlive them."""
    return _prefix("projects", project, "galleries", gallery_uid, identity_uid)


def identity_image(project: str, gallery_uid: str, identity_uid: str, image_id: str) -> str:
    return check_key(f"{identity_prefix(project, gallery_uid, identity_uid)}{image_id}")


def gallery_prefix(project: str, gallery_uid: str) -> str:
    return _prefix("projects", project, "galleries", gallery_uid)


def prediction(project: str, deployment_id: str, prediction_id: str, name: str) -> str:
    return check_key(f"{_prefix('projects', project, 'predictions', deployment_id, prediction_id)}{_plain(name)}")


def upload(project: str, upload_id: str, name: str) -> str:
    """Return the key of an archive a client uploads before it is imported."""
    return check_key(f"{_prefix('projects', project, 'uploads', upload_id)}{_plain(name)}")


def published_weights(library: str, name: str) -> str:
    """Return where an operator may put weights that a library publishes, for workers that cannot reach its server."""
    return check_key(f"{_prefix('weights', library)}{_plain(name)}")


def manifest(prefix: str) -> str:
    return check_key(f"{prefix}{MANIFEST}")


def _prefix(*parts: str) -> str:
    return check_key("/".join(parts)) + "/"


def _plain(name: str) -> str:
    """Return a name fit for a key: what is unusual becomes an underscore."""
    return _UNSAFE.sub("_", name).strip("._-")[:120] or "blob"
