"""A database, a store and one real agent with TorchServe over a state directory; archives of a real detection network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.agent.client import TorchServeClient
from services.agent.config import Layout, batch_size, startup_seconds
from services.core.settings import Settings
from services.core.states import DeploymentState, JobState
from services.core.target import ServingTarget
from services.db import archives, deployments, jobs
from services.db.database import Database
from services.db.deployments import Deployment, Replica
from services.storage import layout as keys
from services.storage.open import open_store
from tests.builders.detection_bundle import write_detection_bundle
from tests.builders.serving_rows import claimed
from tests.stack.builders import new_model_version, queued_job
from tests.stack.ports import free_port
from workers.engine.frames import FrameWriter
from workers.serving.archive import write_archive
from workers.serving.build import BuildPlan, build
from workers.serving.bundle import read_golden
from workers.serving.form import Form

PATIENCE_SECONDS = 90.0
TARGET = "cpu-t1"


@dataclass(frozen=True)
class BuiltModel:
    """A model version with its archive published, and what it must answer."""

    version_id: str
    inputs: tuple[bytes, ...]
    answers: tuple[dict[str, Any], ...]
    archive: Path


@dataclass
class ServingYard:
    root: Path
    extra_env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state_dir = self.root / "state"
        self.state_dir.mkdir(parents=True)
        ports = {
            f"TRAINYARD_TORCHSERVE_{name}_PORT": str(free_port())
            for name in ("INFERENCE", "MANAGEMENT", "METRICS", "GRPC", "GRPC_MANAGEMENT")
        }
        self.env = {
            "TRAINYARD_STATE_DIR": str(self.state_dir),
            "TRAINYARD_AGENT_ID": "agent-1",
            "TRAINYARD_TIMINGS__RECONCILE_INTERVAL": "1",
            "TRAINYARD_TIMINGS__SERVING_RESTART_LIMIT": "2",
            **ports,
            **self.extra_env,
        }
        before = dict(os.environ)
        os.environ.update(self.env)
        self.settings = Settings()
        os.environ.clear()
        os.environ.update(before)
        self.database = Database(self.settings.resolved_database_url)
        self.database.migrate()
        self.store = open_store(self.settings)

    def publish(
        self, *, seed: int, forms: tuple[Form, ...] = (Form.EAGER,), spoil: dict[str, Any] | None = None
    ) -> BuiltModel:
        """Store the archive of a detection network; `spoil` breaks the bundle behind the parity gate's back."""
        bundle_dir = write_detection_bundle(self.root / f"bundle-{seed}-{len(spoil or {})}", seed=seed)
        return self.publish_bundle(bundle_dir, model_id=f"digits-{seed}", forms=forms, spoil=spoil)

    def publish_bundle(
        self,
        bundle_dir: Path,
        *,
        model_id: str,
        forms: tuple[Form, ...] = (Form.EAGER,),
        spoil: dict[str, Any] | None = None,
    ) -> BuiltModel:
        """Build an archive of a bundle and store it as a worker does."""
        path = self.root / f"archive-{bundle_dir.name}.mar"
        recipe = json.loads((bundle_dir / "bundle.json").read_text())["recipe"]
        version = self._succeed(model_id, recipe)
        model = {"name": version.model_id, "version": version.version}
        with open(os.devnull, "wb") as sink:
            built = build(BuildPlan(bundle_dir, path, ServingTarget(), model, forms), FrameWriter(sink.fileno()))
        archive = built.archive if spoil is None else _spoiled(path, spoil)
        key = keys.archive("default", version.model_id, version.id, TARGET, sha256=archive.sha256)
        self.store.put_file(key, path)
        lease = claimed(self.database, version.id)
        with self.database.write() as session:
            archives.finish_ready(
                session, lease, key=key, sha256=archive.sha256, size_bytes=archive.size_bytes, form="eager", parity={}
            )
        golden = read_golden(bundle_dir)
        return BuiltModel(version.id, golden.inputs, tuple(map(dict, golden.answers)), path)

    def deploy(self, name: str, model: BuiltModel, *, workers: int = 1) -> Deployment:
        new = deployments.NewDeployment(
            project="default",
            deployment_id=name,
            request_id=f"deploy-{name}",
            request_sha256="0" * 64,
            model_version_id=model.version_id,
            target=TARGET,
            workers=workers,
        )
        with self.database.write() as session:
            return deployments.insert(session, new)[0]

    def replace(self, name: str, model: BuiltModel, *, workers: int = 1) -> None:
        with self.database.write() as session:
            deployments.update(
                session, "default", name, model_version_id=model.version_id, target=TARGET, workers=workers
            )

    def get(self, name: str) -> Deployment:
        with self.database.read() as session:
            return deployments.get(session, "default", name)

    def wait_state(self, name: str, state: DeploymentState) -> Deployment:
        return wait_for(lambda: self.get(name), lambda found: found.state is state)

    def replica(self, name: str) -> Replica:
        return self.get(name).replicas[0]

    def predict(self, name: str, body: bytes, *, token: str | None = None, **headers: str) -> httpx.Response:
        replica = self.replica(name)
        auth = {"authorization": f"Bearer {token or replica.token}", **headers}
        url = f"{replica.inference_url}/predictions/default--{name}"
        return httpx.post(url, content=body, headers=auth, timeout=30, trust_env=False)

    @property
    def layout(self) -> Layout:
        return Layout(self.settings.resolved_torchserve_dir)

    def client(self) -> TorchServeClient:
        return TorchServeClient(
            management_url=f"http://127.0.0.1:{self.settings.torchserve_management_port}",
            inference_url=f"http://127.0.0.1:{self.settings.torchserve_inference_port}",
            key_file=self.layout.key_file,
            batch_size=batch_size(self.settings.serving_device),
            startup_seconds=startup_seconds(self.settings),
        )

    @contextmanager
    def agent(self, *arguments: str) -> Iterator[psutil.Process]:
        with (self.root / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.agent", *arguments],
                env={**os.environ, **self.env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def java(self, agent: psutil.Process) -> psutil.Process:
        return wait_for(
            lambda: next((one for one in agent.children(recursive=True) if "java" in one.name()), None),
            lambda found: found is not None,
        )

    def _succeed(self, model_id: str, recipe: str) -> Any:
        job = queued_job(self.database, model_id=model_id, recipe=recipe)
        with self.database.write() as session:
            lease = jobs.claim(session, job.id, worker_id="w", ttl_seconds=30)
        with self.database.write() as session:
            jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
        from services.db import models

        with self.database.read() as session:
            return models.get(session, "default", model_id)


def wait_for(look: Callable[[], Any], is_right: Callable[[Any], bool], seconds: float = PATIENCE_SECONDS) -> Any:
    """Return what `look` sees once it is right; fail with the last sight after the time."""
    end = time.monotonic() + seconds
    while not is_right(seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"still not so after {seconds:.0f} s: {seen}")
        time.sleep(0.05)
    return seen


def _spoiled(path: Path, constants: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch)
        bundle = Path(scratch) / "bundle.json"
        document = json.loads(bundle.read_text())
        document["spec"]["constants"] |= constants
        bundle.write_text(json.dumps(document))
        names = [
            "bundle.json",
            "weights.safetensors",
            "serving.json",
            *(f"golden/{p.name}" for p in (Path(scratch) / "golden").iterdir()),
        ]
        return write_archive(path, members={name: Path(scratch) / name for name in names}, model_name="spoilt")
