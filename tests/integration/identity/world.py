"""Two projects on one server, one full of everything; and what its store holds, to compare."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.core.states import JobState
from services.db import archives, artifacts, audit, datasets, deployments, identities, jobs, models
from services.db import tables as t
from services.db.artifacts import Artifact, NewArtifact
from services.db.database import Database
from services.db.datasets import DatasetVersion
from services.db.deployments import NewDeployment, Observed
from services.db.jobs import Lease
from services.db.models import ModelVersion
from services.db.types import now
from services.storage import layout
from services.storage.manifest import upload_directory
from services.storage.port import ObjectStore
from tests.builders.galleries import image, make_gallery, new_identity, vector
from tests.stack.builders import make_job, new_checkpoint, new_dataset, new_job, new_model_version

SECRET = "nobody-else-may-read-this"


@dataclass(frozen=True)
class Estate:
    """The names and ids of one project's resources, one of each kind."""

    project: str
    dataset: str
    job: str
    waiting_job: str
    checkpoint: str
    artifact: str
    model: str
    model_version: str
    deployment: str
    gallery: str
    identity: str
    request_id: str

    @property
    def parent(self) -> str:
        return f"projects/{self.project}"


def furnish(database: Database, store: ObjectStore, folder: Path, project: str, serving_url: str) -> Estate:
    """Fill a project with two of everything: datasets, jobs and what they leave behind, served deployments."""
    dataset = [_dataset(database, store, folder / f"dataset-{i}", project, f"{project}-data-{i}") for i in range(2)][-1]
    fields: dict[str, Any] = {"project": project, "display_name": SECRET, "model_id": f"{project}-model"}
    request_id = f"{project}-request"
    with database.write() as session:
        waiting = make_job(session, dataset.id, **fields)
        new = new_job(dataset.id, request_id=request_id, recipe="face/triplet", **fields)
        trained = jobs.insert(session, new)[0]
        lease = jobs.claim(session, trained.id, worker_id="w", ttl_seconds=3600)
    checkpoint = [_checkpoint(database, store, folder / f"checkpoint-{step}", lease, step) for step in (5, 6)][-1]
    artifact = [_artifact(database, store, lease, step) for step in (5, 6)][-1]
    bundle = layout.bundle_prefix(project, f"{project}-model", "v1")
    bundled = upload_directory(store, bundle, _files(folder / "bundle"))
    made = new_model_version(
        checkpoint_id=checkpoint.id, bundle_prefix=bundle, bundle_sha256=bundled.sha256(), config={"note": SECRET}
    )
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=made)
        second = {"project": project, "model_id": f"{project}-model", "recipe": trained.recipe, "job_id": trained.id}
        models.insert(session, new_model_version(bundle_prefix=bundle, bundle_sha256=bundled.sha256()), **second)
        model = models.get(session, project, f"{project}-model", 1)
    for number in range(2):
        _deployment(database, project, f"{project}-endpoint-{number}", model.id, serving_url)
        gallery = _gallery(database, store, f"{project}-gallery-{number}", model)
    job = f"projects/{project}/jobs/{trained.id}"
    return Estate(
        project=project,
        dataset=f"projects/{project}/datasets/{dataset.dataset_id}",
        job=job,
        waiting_job=f"projects/{project}/jobs/{waiting.id}",
        checkpoint=f"{job}/checkpoints/{checkpoint.id}",
        artifact=f"{job}/artifacts/{artifact.id}",
        model=f"projects/{project}/models/{project}-model",
        model_version=f"projects/{project}/models/{project}-model/versions/1",
        deployment=f"projects/{project}/deployments/{project}-endpoint-0",
        gallery=gallery,
        identity=f"{gallery}/identities/{project}-person-1",
        request_id=request_id,
    )


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table but the audit log, which is to grow."""
    with database.read() as session:
        return {
            table.name: sorted(map(tuple, session.execute(sa.select(table))), key=repr)
            for table in t.metadata.sorted_tables
            if table is not t.audit_lines
        }


def objects(store: ObjectStore) -> dict[str, str]:
    """Return the digest of every object."""
    return {info.key: hashlib.sha256(store.get(info.key)).hexdigest() for info in store.list("")}


def last_lines(database: Database, size: int = 1) -> list[audit.Stored]:
    with database.read() as session:
        return audit.page(session, page_size=size)


def _dataset(database: Database, store: ObjectStore, folder: Path, project: str, dataset_id: str) -> DatasetVersion:
    new = new_dataset(project=project, dataset_id=dataset_id, report={"display_name": SECRET})
    prefix = layout.dataset_prefix(project, dataset_id, new.id)
    manifest = upload_directory(store, prefix, _files(folder))
    stored = replace(new, manifest_key=layout.manifest(prefix), manifest_sha256=manifest.sha256())
    with database.write() as session:
        return datasets.insert(session, stored)[0]


def _checkpoint(database: Database, store: ObjectStore, folder: Path, lease: Lease, step: int) -> jobs.Checkpoint:
    prefix = layout.checkpoint_prefix(lease.project, lease.job_id, step, lease.token)
    manifest = upload_directory(store, prefix, _files(folder))
    files = [{"name": name, "size_bytes": e.size_bytes, "sha256": e.sha256} for name, e in manifest.files.items()]
    new = new_checkpoint(step, prefix=prefix, manifest_sha256=manifest.sha256(), files=files)
    with database.write() as session:
        return jobs.commit_checkpoint(session, lease, new)


def _artifact(database: Database, store: ObjectStore, lease: Lease, step: int) -> Artifact:
    key = layout.artifact(lease.project, lease.job_id, f"sample-{step}.png")
    info = store.put(key, SECRET.encode())
    new = NewArtifact(
        name="sample.png", kind="picture", key=key, size_bytes=info.size_bytes, sha256=info.sha256 or "", step=step
    )
    with database.write() as session:
        return artifacts.add(session, lease, new)


def _deployment(database: Database, project: str, deployment_id: str, version_id: str, serving_url: str) -> None:
    """Deploy a model version, build its archive and report a ready replica, as worker and agent do."""
    new = NewDeployment(
        project=project,
        deployment_id=deployment_id,
        request_id=f"deploys-{deployment_id}",
        request_sha256="0" * 64,
        model_version_id=version_id,
        target="cpu-t1",
    )
    with database.write() as session:
        made = deployments.insert(session, new)[0]
        if made.archive.sha256 is None:
            lease = archives.claim(session, made.archive.id, worker_id="w", ttl_seconds=60)
            archives.finish_ready(session, lease, key="k", sha256="a" * 64, size_bytes=9, form="eager", parity={})
        deployments.report_replica(
            session,
            f"agent-{deployment_id}",
            inference_url=serving_url,
            grpc_address="127.0.0.1:1",
            token=SECRET,
            token_expire_time=None,
            observed=[Observed(made.id, "a" * 64, True)],
        )
        # Nobody reports again: the agent counts as alive for as long as the tests take.
        session.execute(sa.update(t.agents).values(report_time=now(3600)))


def _gallery(database: Database, store: ObjectStore, gallery_id: str, model: ModelVersion) -> str:
    """Enrol two people, with an image kept of each, and return the gallery's name."""
    gallery = make_gallery(
        database, model, gallery_id=gallery_id, deployment_id=f"{model.project}-endpoint-0", request_id=gallery_id
    )
    for number in range(2):
        person = new_identity(
            f"{model.project}-person-{number}", display_name=SECRET, vector=vector(1.0, float(number))
        )
        kept = image(gallery, person.id, SECRET.encode())
        store.put(kept.key, SECRET.encode())
        with database.write() as session:
            identities.enrol(session, gallery, replace(person, images=[kept]), replace_existing=False, limit=9)
    return f"projects/{model.project}/galleries/{gallery_id}"


def _files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "content.txt").write_text(SECRET)
    return folder
