"""A real API server process over a database with some rows in it, to be fuzzed."""

from __future__ import annotations

import gc
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trainyard.v1 import job_pb2, job_pb2_grpc

from services.core.settings import Settings
from tests.fuzz.messages import Vocabulary, page_tokens
from tests.integration.backup.lived_in import LivedIn, place
from tests.stack.platform import control_plane

_FILLS = 6
_TEXTS = {
    "recipe": ("detection/yolo_v1", "detection/ssd"),
    "preset": ("tiny", "full", ""),
    "family": ("detection", ""),
    "dataset_id": ("fresh", "digits"),
    "deployment_id": ("fresh", "digits-0"),
    "gallery_id": ("fresh", "people-digits-0"),
    "identity_id": ("fresh", "ada"),
    "model_id": ("fresh", "digits-yolo"),
    "resource_class": ("cpu", ""),
    "file": ("model.safetensors", "bundle.json", "manifest.json", ""),
    "request_id": ("",),
    "service": ("", "trainyard.v1.JobService"),
    "list_services": ("",),
    "file_containing_symbol": ("trainyard.v1.JobService",),
}
# Which names fit a field called `name`, by a word in the name of the request.
_COLLECTIONS = {
    "Dataset": [("datasets",)],
    "ModelVersion": [("models", "versions")],
    "Artifact": [("jobs", "artifacts"), ("jobs", "checkpoints"), ("models", "versions")],
    "Deployment": [("deployments",)],
    "Predict": [("deployments",)],
    "Job": [("jobs",)],
    "Gallery": [("galleries",)],
    "Identity": [("galleries", "identities")],
    "Verify": [("galleries",)],
    "Identify": [("galleries",)],
}
_OTHERS = {
    "dataset": [("datasets",)],
    "checkpoint": [("jobs", "checkpoints")],
    "deployment": [("deployments",)],
    "init_from": [("jobs", "checkpoints"), ("models", "versions"), ("datasets",)],
    "model_version": [("models", "versions")],
}


@dataclass(frozen=True, slots=True)
class Target:
    """One server under test."""

    address: str
    process: psutil.Process
    vocabulary: Vocabulary
    token: str
    secrets: Sequence[str]
    """What no answer may hold."""

    def rss_bytes(self) -> int:
        """Return the memory of the server, and not of an import that it runs."""
        rss: int = self.process.memory_info().rss
        return rss

    def lives(self) -> bool:
        """Return whether the process that was started still serves."""
        try:
            with grpc.insecure_channel(self.address) as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.RpcError:
            return False
        return self.process.is_running() and answer.status == health_pb2.HealthCheckResponse.SERVING


@contextmanager
def fuzz_target(directory: Path, *, database_url: str = "") -> Iterator[Target]:
    """Run a server with a dataset, some jobs, a model and a deployment."""
    token = f"ty_default_fuzz_{secrets.token_hex(24)}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bootstrap").write_text(token)
    environ = {
        "TRAINYARD_BOOTSTRAP_TOKEN_FILE": str(directory / "bootstrap"),
        "TRAINYARD_API_CALLS_PER_SECOND": "1000000",
        "TRAINYARD_TOKEN": token,
        **({"TRAINYARD_DATABASE_URL": database_url} if database_url else {}),
    }
    state_dir = directory / "state"
    with control_plane(state_dir, environ, has_controller=False) as stack:
        url = database_url or Settings(state_dir=state_dir).resolved_database_url
        with place(state_dir, url=url) as platform:
            for number in range(_FILLS):
                platform.fill(f"digits-{number}")
            names = _names(platform)
        tokens = page_tokens(_page_token(stack.address, token))
        vocabulary = _vocabulary(names, tokens)
        process = psutil.Process(stack.processes["api"].pid)
        yield Target(stack.address, process, vocabulary, token, (str(directory), token.rpartition("_")[2]))


def settle(target: Target) -> int:
    """Return the memory of the server once nothing is under way any more."""
    gc.collect()
    for _ in range(20):
        if not target.process.children():
            break
        time.sleep(0.25)
    return target.rss_bytes()


def _names(platform: LivedIn) -> list[str]:
    rows: dict[str, list[dict[str, Any]]] = platform.rows()
    jobs = [f"projects/default/jobs/{row['id']}" for row in rows["jobs"]]
    checkpoints = [f"projects/default/jobs/{row['job_id']}/checkpoints/{row['id']}" for row in rows["checkpoints"]]
    artifacts = [f"projects/default/jobs/{row['job_id']}/artifacts/{row['id']}" for row in rows["artifacts"]]
    models = ["projects/default/models/digits-yolo", "projects/default/models/digits-yolo/versions/1"]
    galleries = [f"projects/default/galleries/{row['gallery_id']}" for row in rows["galleries"]]
    people = [f"{name}/identities/ada" for name in galleries]
    others = ["projects/default/datasets/digits", "projects/default/deployments/digits-0", "projects/default"]
    return [*jobs, *checkpoints[:6], *artifacts[:6], *models, *galleries[:3], *people[:3], *others]


def _vocabulary(names: Sequence[str], tokens: Sequence[str]) -> Vocabulary:
    def of(collections: Sequence[tuple[str, ...]]) -> list[str]:
        return [name for name in names if tuple(name.split("/")[2::2]) in collections]

    def fitting(message: str, field: str) -> Sequence[str]:
        if field == "page_token":
            return ("", *tokens)
        if field == "name":
            words = [word for word in _COLLECTIONS if word in message]
            return of(_COLLECTIONS[words[0]]) if words else ("recipes/detection/yolo_v1",)
        if field == "parent":
            if message in ("ListCheckpointsRequest", "ListArtifactsRequest"):
                return of([("jobs",)])
            if message in ("EnrolIdentityRequest", "ListIdentitiesRequest"):
                return of([("galleries",)])
            return ("projects/default", "", *(of([("models",)]) if "ModelVersion" in message else ()))
        return of(_OTHERS[field]) if field in _OTHERS else _TEXTS.get(field, ())

    return Vocabulary(fitting, names)


def _page_token(address: str, token: str) -> str:
    with grpc.insecure_channel(address) as channel:
        request = job_pb2.ListJobsRequest(page_size=1)
        reply = job_pb2_grpc.JobServiceStub(channel).ListJobs(
            request, metadata=(("authorization", f"Bearer {token}"),), timeout=10
        )
    assert reply.next_page_token
    return str(reply.next_page_token)
