"""The composition root of the API server: every object it is made of, made and closed in one place."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog
from trainyard.v1 import (
    dataset_pb2_grpc,
    deployment_pb2_grpc,
    gallery_pb2_grpc,
    job_pb2_grpc,
    model_pb2_grpc,
    recipe_pb2_grpc,
)

from services.core.errors import DatabaseUnavailable
from services.core.settings import Settings
from services.core.target import ServingTarget
from services.datasets.manager import DatasetManager
from services.datasets.servicer import DatasetServicer
from services.datasets.upload import Uploads
from services.db import tokens
from services.db.database import Database
from services.db.work import Work
from services.deployments.manager import DeploymentManager
from services.deployments.predict import Predictor
from services.deployments.servicer import DeploymentServicer
from services.galleries.cache import MatrixCache
from services.galleries.embed import Embedder
from services.galleries.enrolment import Enrolment
from services.galleries.following import Follower
from services.galleries.manager import GalleryManager
from services.galleries.objects import ImageObjects
from services.galleries.recognition import Recogniser
from services.galleries.servicer import GalleryServicer
from services.identity.authenticator import Authenticator
from services.identity.guard import Guard
from services.identity.sessions import Sessions
from services.identity.trail import Trail
from services.jobs.manager import JobManager
from services.jobs.servicer import JobServicer
from services.jobs.watch import EventHub
from services.models.download import DownloadManager
from services.models.manager import ModelManager
from services.models.servicer import ModelServicer
from services.recipes.manager import RecipeManager
from services.recipes.servicer import RecipeServicer
from services.rpc.limits import ServerLimits
from services.rpc.server import Server
from services.rpc.tls import TlsFiles
from services.storage.port import ObjectStore

log = structlog.get_logger(__name__)

SERVICES = tuple(
    f"trainyard.v1.{name}"
    for name in (
        "JobService",
        "DatasetService",
        "RecipeService",
        "ModelService",
        "DeploymentService",
        "GalleryService",
    )
)
DATASET_THREADS = 8
IMPORT_THREADS = 8
DRAIN_SECONDS = 8.0
HUB_SECONDS = 1.0
PROBE_SECONDS = 5.0


class Api:
    """One API server over a database and an object store. Built and used on one event loop."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        target = str(ServingTarget(settings.serving_device, settings.serving_threads, settings.serving_precision))
        self._settings = settings
        self._database = database
        self._work = Work(database)
        self._hub = EventHub(database, self._work)
        self._threads = ThreadPoolExecutor(DATASET_THREADS, thread_name_prefix="dataset")
        self._downloads = DownloadManager(self._work, store)
        deployments = DeploymentManager(self._work, target=target)
        self._predictor = Predictor(deployments)
        recipes = RecipeManager.of_catalog()
        # Imports and fetches take minutes; nothing short may wait behind them.
        self._imports = ThreadPoolExecutor(IMPORT_THREADS, thread_name_prefix="import")
        uploads = Uploads(settings.state_dir / "uploads", self._threads, limit_bytes=settings.api_upload_limit_bytes)
        datasets = DatasetManager(database, store, settings)
        models = ModelManager(self._work, store, target=target)

        authenticator = Authenticator(lambda token_id: self._work.read(lambda session: tokens.find(session, token_id)))
        self._sessions = Sessions(authenticator)
        self._trail = Trail(self._work)
        guard = Guard(authenticator, self._sessions, self._trail)
        self._server = Server(_limits(settings), guards=(guard,))
        grpc = self._server.grpc
        jobs = JobServicer(JobManager(self._work, recipes, self._hub))
        job_pb2_grpc.add_JobServiceServicer_to_server(jobs, grpc)
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(
            DatasetServicer(datasets, uploads, threads=self._threads, imports=self._imports), grpc
        )
        recipe_pb2_grpc.add_RecipeServiceServicer_to_server(RecipeServicer(recipes), grpc)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(models, self._downloads), grpc)
        deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(
            DeploymentServicer(deployments, self._predictor), grpc
        )
        gallery_pb2_grpc.add_GalleryServiceServicer_to_server(self._galleries(store, recipes), grpc)
        self._server.describe(SERVICES)
        self._readiness: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Serve, and return the port; 0 picks a free one."""
        tls = TlsFiles.of_settings(
            self._settings.tls_cert_file, self._settings.tls_key_file, self._settings.tls_client_ca_file
        )
        bound = await self._server.start(host, port, tls=tls, health_port=self._settings.health_port)
        self._readiness = asyncio.create_task(self._watch_readiness())
        self._follower.start()
        return bound

    async def stop(self, grace_seconds: float = DRAIN_SECONDS) -> None:
        """Drain: watchers are sent elsewhere at once, other calls get `grace_seconds` to end."""
        if self._readiness is not None:
            self._readiness.cancel()
        drained = asyncio.create_task(self._server.drain(grace_seconds))
        # After the server refuses new calls, so that a watcher that reconnects reaches another one.
        await asyncio.sleep(0)
        self._hub.end_streams()
        with suppress(TimeoutError):  # a database that went away may hold it, and nobody waits for it
            await asyncio.wait_for(asyncio.to_thread(self._hub.close), HUB_SECONDS)
        await drained
        self._sessions.close()
        await self._trail.close()
        await self._follower.close()
        await self._recogniser.close()
        await self._predictor.close()
        self._images.close()
        self._downloads.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._imports.shutdown(wait=False, cancel_futures=True)
        self._work.close()

    def _galleries(self, store: ObjectStore, recipes: RecipeManager) -> GalleryServicer:
        embedder, cache = Embedder(self._predictor), MatrixCache()
        self._images = ImageObjects(store)
        self._recogniser = Recogniser(self._work, embedder, cache)
        manager = GalleryManager(self._work, recipes, self._images, cache)
        limit = self._settings.api_gallery_identities
        enrolment = Enrolment(self._work, embedder, self._images, manager, limit=limit)
        self._follower = Follower(
            self._work,
            enrolment,
            self._database.leadership("galleries"),
            interval_seconds=self._settings.timings.reconcile_interval,
        )
        return GalleryServicer(manager, enrolment, self._recogniser)

    async def _watch_readiness(self) -> None:
        loop = asyncio.get_running_loop()
        is_ready = True
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            was_ready = is_ready
            try:
                await loop.run_in_executor(None, self._database.ping)
                is_ready = True
            except DatabaseUnavailable:
                is_ready = False
            if is_ready != was_ready:
                log.info("readiness_changed", is_ready=is_ready)
                await self._server.set_ready(is_ready)


def _limits(settings: Settings) -> ServerLimits:
    return ServerLimits(
        calls_per_second=settings.api_calls_per_second, streams_per_caller=settings.api_streams_per_caller
    )
