"""A real API server on a free port, with SQLite and local files, and a client of it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from trainyard.v1 import (
    dataset_pb2_grpc,
    deployment_pb2_grpc,
    gallery_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    model_pb2_grpc,
    recipe_pb2_grpc,
)

from services.api.compose import Api
from services.core.settings import Settings
from services.db.database import Database
from services.storage.open import open_store
from services.storage.port import ObjectStore
from tests.stack.builders import make_dataset
from tests.stack.identity import admit, showing

TIMEOUT = 30.0


@dataclass(slots=True)
class Running:
    """One server in a thread of this process, and what a test needs to look behind it."""

    settings: Settings
    database: Database
    store: ObjectStore
    address: str
    channel: grpc.Channel
    """Shows the token of an administrator of the default project."""
    token: str
    jobs: job_pb2_grpc.JobServiceStub = field(init=False)
    datasets: dataset_pb2_grpc.DatasetServiceStub = field(init=False)
    recipes: recipe_pb2_grpc.RecipeServiceStub = field(init=False)
    models: model_pb2_grpc.ModelServiceStub = field(init=False)
    deployments: deployment_pb2_grpc.DeploymentServiceStub = field(init=False)
    galleries: gallery_pb2_grpc.GalleryServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = job_pb2_grpc.JobServiceStub(self.channel)
        self.datasets = dataset_pb2_grpc.DatasetServiceStub(self.channel)
        self.recipes = recipe_pb2_grpc.RecipeServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.deployments = deployment_pb2_grpc.DeploymentServiceStub(self.channel)
        self.galleries = gallery_pb2_grpc.GalleryServiceStub(self.channel)

    def create(self, **fields: object) -> job_pb2.Job:
        return self.jobs.CreateJob(job_request(**fields), timeout=TIMEOUT).job


def job_request(**fields: object) -> job_pb2.CreateJobRequest:
    """Return a valid request for a job on the dataset every test starts with."""
    values = {"recipe": "detection/yolo_v1", "preset": "tiny", "dataset": "projects/default/datasets/digits"}
    return job_pb2.CreateJobRequest(**{**values, **fields})  # type: ignore[arg-type]


class ServerThread:
    """Runs one Api on an event loop of its own."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        self._parts = (settings, database, store)
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.port = 0

    def start(self) -> int:
        self._thread.start()
        assert self._started.wait(TIMEOUT)
        return self.port

    def stop(self) -> None:
        assert self._loop is not None
        assert self._stopping is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _serve(self) -> None:
        api = Api(*self._parts)
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self.port = await api.start("127.0.0.1", 0)
        self._started.set()
        await self._stopping.wait()
        await api.stop(grace_seconds=2.0)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database with one dataset, copied for every test."""
    path = tmp_path_factory.mktemp("template") / "metadata.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    with database.write() as session:
        make_dataset(session)
    database.dispose()
    return path


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[Running, ServerThread]]:
    """Run a server on a migrated database for the time of the block."""
    database = Database(settings.resolved_database_url)
    store = open_store(settings)
    thread = ServerThread(settings, database, store)
    address = f"127.0.0.1:{thread.start()}"
    token = admit(database)
    with grpc.insecure_channel(address) as channel:
        yield Running(settings, database, store, address, showing(channel, token), token), thread
    thread.stop()
    database.dispose()


@pytest.fixture
def server(template: Path, tmp_path: Path) -> Iterator[tuple[Running, ServerThread]]:
    shutil.copy(template, tmp_path / "metadata.sqlite3")
    with serving(Settings(state_dir=tmp_path)) as running:
        yield running


@pytest.fixture
def api(server: tuple[Running, ServerThread]) -> Running:
    return server[0]
