"""Whom a picture shows, among 10,000 people: what comparing takes beyond the embedding, which a fixed answer stands for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import sqlalchemy as sa
from trainyard.v1 import deployment_pb2, deployment_pb2_grpc, gallery_pb2, gallery_pb2_grpc

from services.core.settings import Settings
from services.db import tables as t
from services.db.database import Database
from services.db.galleries import Gallery
from services.db.types import now
from tests.bench.figures import percentile
from tests.builders.face_endpoint import FaceEndpoint, face_endpoint
from tests.builders.galleries import deployed, make_gallery, trained
from tests.builders.galleries import report as report_replica
from tests.stack.identity import showing
from tests.stack.platform import control_plane

IDENTITIES = 10_000
DIMENSIONS = (128, 512)
CALLS = 500
WARM = 20
BAR_MS = 20.0
DEPLOYMENT = "projects/default/deployments/faces"

Call = Callable[[], Any]


def run(directory: Path) -> dict[str, Any]:
    report: dict[str, Any] = {"identities": IDENTITIES, "bar_ms": BAR_MS}
    state_dir = directory / "state"
    with (
        face_endpoint() as endpoint,
        control_plane(state_dir, has_controller=False) as stack,
        grpc.insecure_channel(stack.address) as channel,
    ):
        database = Database(Settings(state_dir=state_dir).resolved_database_url)
        version = trained(database)
        deployed(database, version)
        shown = showing(channel, stack.token)
        for size in DIMENSIONS:
            report_replica(database, endpoint.url)
            vectors = _people(size)
            gallery = make_gallery(database, version, gallery_id=f"people-{size}")
            begin = time.perf_counter()
            _fill(database, gallery, vectors)
            figures = _measure(shown, endpoint, gallery, vectors)
            report[f"{size}d"] = {**figures, "fill_seconds": round(time.perf_counter() - begin, 1)}
        database.dispose()
    report["is_under_the_bar"] = all(report[f"{size}d"]["beyond_embedding_ms"]["p99"] <= BAR_MS for size in DIMENSIONS)
    return {"identify": report}


def _measure(channel: grpc.Channel, endpoint: FaceEndpoint, gallery: Gallery, vectors: Any) -> dict[str, Any]:
    """Call Identify and Predict in turns: both embed one picture, and only the first compares it."""
    galleries = gallery_pb2_grpc.GalleryServiceStub(channel)
    predictions = deployment_pb2_grpc.DeploymentServiceStub(channel)
    identify = gallery_pb2.IdentifyRequest(
        name=f"projects/default/galleries/{gallery.gallery_id}", image=gallery_pb2.FaceImage(content=b"face")
    )
    predict = deployment_pb2.PredictRequest(name=DEPLOYMENT, instances=[deployment_pb2.Instance(body=b"face")])
    rng = np.random.default_rng(1)
    begin = time.perf_counter()
    with _answering(endpoint, vectors[0]):
        galleries.Identify(identify)
    first = time.perf_counter() - begin
    seconds: dict[str, list[float]] = {"identify_ms": [], "embedding_ms": [], "beyond_embedding_ms": []}
    for number in range(WARM + CALLS):
        person = int(rng.integers(IDENTITIES))
        with _answering(endpoint, vectors[person]):
            reply, whole = _timed(lambda: galleries.Identify(identify))
            _, embedding = _timed(lambda: predictions.Predict(predict))
        assert reply.compared_count == IDENTITIES
        assert reply.matches[0].identity.endswith(f"/p{person:05d}")
        if number >= WARM:
            for name, value in zip(seconds, (whole, embedding, whole - embedding), strict=True):
                seconds[name].append(value)
    figures: dict[str, Any] = {
        name: {key: round(1e3 * percentile(values, share), 2) for key, share in (("p50", 0.5), ("p99", 0.99))}
        for name, values in seconds.items()
    }
    return {**figures, "first_call_ms": round(1e3 * first, 1)}


@contextmanager
def _answering(endpoint: FaceEndpoint, vector: Any) -> Any:
    """Let the serving process answer a vector at once, with a little noise as another picture would have."""
    noisy = vector + 0.02 * np.random.default_rng(2).normal(size=vector.size) / np.sqrt(vector.size)
    answer = [round(float(value), 7) for value in noisy / np.linalg.norm(noisy)]
    endpoint.embed = lambda content: answer  # type: ignore[method-assign]  # the network is not what is measured
    yield


def _timed(call: Call) -> tuple[Any, float]:
    begin = time.perf_counter()
    reply = call()
    return reply, time.perf_counter() - begin


def _people(size: int) -> Any:
    vectors = np.random.default_rng(0).normal(size=(IDENTITIES, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")


def _fill(database: Database, gallery: Gallery, vectors: Any) -> None:
    """Insert everybody at once; one by one it would take a minute, and the rows are the same."""
    shared = {"gallery_uid": gallery.id, "request_sha256": "", "image_count": 1, "revision": 2, "create_time": now()}
    uids = [f"{len(vectors[0]):05d}{number:021d}" for number in range(len(vectors))]
    people = [
        {"id": uid, "identity_id": f"p{number:05d}", "request_id": uid, "display_name": f"Person {number}"}
        for number, uid in enumerate(uids)
    ]
    rows = [
        {"identity_uid": uid, "model_version_id": gallery.model_version_id, "vector": vector.tobytes()}
        for uid, vector in zip(uids, vectors, strict=True)
    ]
    with database.write() as session:
        session.execute(sa.insert(t.identities).values(**shared), people)
        session.execute(sa.insert(t.embeddings), rows)
        session.execute(sa.update(t.galleries).where(t.galleries.c.id == gallery.id).values(revision=2))
