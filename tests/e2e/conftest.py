"""The platforms that the suite runs on, one after the other, each with a job trained and deployed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from trainyard.v1 import deployment_pb2, job_pb2

from services.client.sdk import Trainyard
from services.datasets.shape_scenes import write_shape_scenes
from tests.e2e import endpoints
from tests.e2e.endpoints import Platform
from tests.integration.serving.torchserve_grpc import compile_stubs
from tests.stack.data import import_folder
from tests.stack.install import required_parts

RECIPE = "detection/yolo_v1"
DATASET = "e2e-shapes"
# Time to get hold of a container and kill it while the job runs; a process is killed at once.
STEPS = 200 if endpoints.is_named() else 80
PLATFORMS: dict[str, Callable[[Path], AbstractContextManager[Platform]]] = (
    {"named": endpoints.named}
    if endpoints.is_named()
    else {"embedded": endpoints.embedded, "processes": endpoints.processes}
)


def config(**limits: int) -> dict[str, Any]:
    """Return overrides over the tiny preset; two jobs of one config give the same weights on one machine."""
    usual = {
        "max_steps": STEPS,
        "checkpoint_every_steps": 20,
        "evaluate_every_steps": STEPS,
        "sample_every_steps": STEPS,
        "log_every_steps": 1,
    }
    return {
        "runtime": {"precision": "fp32", "channels_last": "off", "seed": 7},
        "data": {"batch_size": 4},
        "limits": usual | limits,
    }


@dataclass(frozen=True)
class Trained:
    """A job that ran to its end undisturbed, and everything it told on the way."""

    job: job_pb2.Job
    events: list[job_pb2.JobEvent]


@pytest.fixture(scope="module", params=PLATFORMS)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with required_parts(), PLATFORMS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[Trainyard]:
    with Trainyard(platform.api, token=platform.token) as made:
        yield made


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "shapes"
    write_shape_scenes(folder, seed=0, train_images=16, val_images=4)
    return folder


@pytest.fixture(scope="module")
def dataset(client: Trainyard, scenes: Path) -> str:
    return import_folder(client, scenes, dataset_id=DATASET).name


@pytest.fixture(scope="module")
def trained(client: Trainyard, dataset: str) -> Trained:
    job = client.create_job(RECIPE, dataset=dataset, preset="tiny", config=config(), model_id="e2e")
    events = list(client.watch(job.name))
    return Trained(client.get_job(job.name), events)


@pytest.fixture(scope="module")
def deployment(client: Trainyard, platform: Platform, trained: Trained) -> Iterator[deployment_pb2.Deployment]:
    made = client.create_deployment("e2e", model_version=trained.job.model_version)
    yield client.wait_until_served(made.name, timeout_seconds=platform.patience_seconds)
    client.delete_deployment(made.name)


@pytest.fixture(scope="session")
def picture(scenes: Path) -> bytes:
    return min((scenes / "images" / "val").iterdir()).read_bytes()


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, ModuleType]:
    return compile_stubs(tmp_path_factory.mktemp("stubs"))
