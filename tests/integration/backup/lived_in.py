"""A platform as it is after some use: a dataset, a finished job with all it makes, a running one, and its objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.core.ids import new_id
from services.core.settings import Settings
from services.core.states import JobState
from services.db import archives, artifacts, checkpoints, datasets, deployments, identities, jobs, models, outbox
from services.db import tables as t
from services.db.database import Database
from services.db.job_records import Lease
from services.storage import layout
from services.storage.local import LocalStore
from services.storage.manifest import upload_directory
from services.storage.port import ObjectStore
from tests.builders import galleries as made
from tests.builders.serving_rows import claimed
from tests.stack import builders


@dataclass
class LivedIn:
    """A database and a store, and what is in them."""

    root: Path
    database: Database
    store: ObjectStore
    running: Lease | None = None
    """Of the job that runs, once there is one."""

    def fill(self, deployment_id: str = "digits") -> None:
        """Bring in data, finish a job with a model and a deployment, and leave another one running."""
        dataset = self._dataset("digits")
        done = self._job(dataset.id)
        for step in (10, 20, 30):
            self.checkpoint(done, step)
        self.artifact(done, "curve.png", b"\x89PNG curve")
        self._succeed(done, deployment_id)
        running = self.running = self._job(dataset.id, display_name="Zwölf \u2603 'quoted' \\ and \"doubly\"")
        self.checkpoint(running, 5)
        with self.database.write() as session:
            jobs.append_events(session, running, [("step", {"step": 6, "total": 10, "scalars": {"train/loss": 1e-30}})])
        with self.database.write() as session:
            outbox.put(session, "webhook", f"job-{running.job_id}", {"text": "x\u2028y"})

    def checkpoint(self, lease: Lease, step: int) -> checkpoints.Checkpoint:
        prefix = layout.checkpoint_prefix("default", lease.job_id, step, lease.token)
        digest = self._upload(prefix, {"model.safetensors": f"weights {step}".encode() * 100, "state.json": b"{}"})
        new = builders.new_checkpoint(step, prefix=prefix, manifest_sha256=digest, metric=step / 7)
        with self.database.write() as session:
            return jobs.commit_checkpoint(session, lease, new)

    def artifact(self, lease: Lease, name: str, body: bytes) -> artifacts.Artifact:
        key = layout.artifact("default", lease.job_id, f"{new_id()}-{name}")
        info = self.store.put(key, body)
        assert info.sha256 is not None
        new = artifacts.NewArtifact(
            name=name, kind="plot", key=key, size_bytes=info.size_bytes, sha256=info.sha256, step=3
        )
        with self.database.write() as session:
            return artifacts.add(session, lease, new)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return everything the database holds but its own version."""
        with self.database.read() as session:
            return {
                table.name: [
                    dict(row) for row in session.execute(sa.select(table).order_by(*table.primary_key)).mappings()
                ]
                for table in t.metadata.sorted_tables
            }

    def objects(self) -> dict[str, bytes]:
        return {info.key: self.store.get(info.key) for info in self.store.list("projects/")}

    def _dataset(self, dataset_id: str) -> datasets.DatasetVersion:
        new = builders.new_dataset(dataset_id=dataset_id)
        prefix = layout.dataset_prefix("default", dataset_id, new.id)
        digest = self._upload(prefix, {"dataset.json": b"{}", "images-00000.tar": bytes(5000)})
        stored = builders.new_dataset(
            id=new.id, dataset_id=dataset_id, manifest_key=layout.manifest(prefix), manifest_sha256=digest
        )
        with self.database.write() as session:
            return datasets.insert(session, stored)[0]

    def _job(self, dataset_version_id: str, **changes: Any) -> Lease:
        with self.database.write() as session:
            job = builders.make_job(session, dataset_version_id, **changes)
        with self.database.write() as session:
            return jobs.claim(session, job.id, worker_id="worker-1", ttl_seconds=60)

    def _succeed(self, lease: Lease, deployment_id: str) -> None:
        version = builders.new_model_version()
        prefix = layout.bundle_prefix("default", "digits-yolo", version.id)
        digest = self._upload(prefix, {"bundle.json": b"{}", "weights.safetensors": bytes(3000)})
        version = builders.new_model_version(id=version.id, bundle_prefix=prefix, bundle_sha256=digest)
        with self.database.write() as session:
            jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=version)
        body = b"archive" * 500
        key = layout.archive("default", "digits-yolo", version.id, "cpu-t1", sha256=builders.sha256("archive"))
        info = self.store.put(key, body)
        with self.database.read() as session:
            row = models.get(session, "default", "digits-yolo")
        build = claimed(self.database, row.id)
        with self.database.write() as session:
            archives.finish_ready(
                session,
                build,
                key=key,
                sha256=info.sha256 or "",
                size_bytes=len(body),
                form="eager",
                parity={"boxes": 0.0},
            )
        new = deployments.NewDeployment(
            project="default",
            deployment_id=deployment_id,
            request_id=new_id(),
            request_sha256=builders.sha256("deployment"),
            model_version_id=row.id,
            target="cpu-t1",
            workers=1,
        )
        with self.database.write() as session:
            deployments.insert(session, new)
        self._gallery(row, deployment_id)

    def _gallery(self, version: models.ModelVersion, deployment_id: str) -> None:
        """Enrol two people, with images kept of one of them."""
        gallery = made.make_gallery(
            self.database, version, gallery_id=f"people-{deployment_id}", deployment_id=deployment_id
        )
        ada = made.new_identity("ada", vector=made.vector(0.6, -0.8))
        kept = [made.image(gallery, ada.id, content) for content in (b"a face", b"another")]
        for image, content in zip(kept, (b"a face", b"another"), strict=True):
            self.store.put(image.key, content)
        with self.database.write() as session:
            for person in (replace(ada, images=kept), made.new_identity("eve", vector=bytes(range(8)))):
                identities.enrol(session, gallery, person, replace_existing=False, limit=9)

    def _upload(self, prefix: str, files: dict[str, bytes]) -> str:
        folder = self.root / "made" / new_id()
        folder.mkdir(parents=True)
        for name, body in files.items():
            (folder / name).write_bytes(body)
        return upload_directory(self.store, prefix, folder).sha256()


@contextmanager
def lived_in(root: Path, *, url: str = "", store: ObjectStore | None = None) -> Iterator[LivedIn]:
    """Open a platform on a fresh database that has been migrated, and fill it."""
    with place(root, url=url, store=store) as platform:
        platform.database.migrate()
        platform.fill()
        yield platform


@contextmanager
def place(root: Path, *, url: str = "", store: ObjectStore | None = None) -> Iterator[LivedIn]:
    """Open an empty database and store."""
    root.mkdir(parents=True, exist_ok=True)
    database = Database(url or Settings(state_dir=root).resolved_database_url)
    try:
        yield LivedIn(root, database, store or LocalStore(root / "objects"))
    finally:
        database.dispose()
