"""One real worker that trains jobs in one and in several processes, and crews of threads for what needs no worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from torch import Tensor

from services.core.states import JobState
from services.db.job_records import Job
from services.storage.manifest import download_directory
from tests.integration.workers.yard import Yard, canonical_scenes, open_yard, until
from workers.engine.crew import Crew, joined
from workers.engine.state import MODEL, OPTIM
from workers.engine.tensorfile import read_tensors

T = TypeVar("T")


@dataclass
class Trials:
    """A yard, and shorthands for what tests of several processes look at."""

    yard: Yard
    folder: Path

    def run(self, *, processes: int, config: dict[str, Any], recipe: str = "detection/yolo_v1") -> Job:
        job = self.submit(processes=processes, config=config, recipe=recipe)
        return self.finished(job.id)

    def submit(self, *, processes: int, config: dict[str, Any], recipe: str = "detection/yolo_v1") -> Job:
        spec = {"recipe": recipe, "config": config, "resources": {"class": "cpu", "processes": processes}}
        return self.yard.submit(recipe=recipe, spec=spec)

    def finished(self, job_id: str) -> Job:
        done = self.yard.until_state(job_id, JobState.SUCCEEDED, JobState.FAILED)
        assert done.state is JobState.SUCCEEDED, f"{done.failure_message}\n{done.failure_log}"
        return done

    def weights(self, job_id: str) -> dict[str, Tensor]:
        """Return networks and optimizers of the newest checkpoint."""
        directory = self._newest(job_id)
        return {**read_tensors(directory / MODEL), **read_tensors(directory / OPTIM)}

    def network(self, job_id: str) -> dict[str, Tensor]:
        """Return parameters and buffers of the newest checkpoint."""
        return read_tensors(self._newest(job_id) / MODEL)

    def _newest(self, job_id: str) -> Path:
        newest = self.yard.checkpoints(job_id)[-1]
        directory = self.folder / newest.id
        if not directory.exists():
            download_directory(self.yard.store, newest.prefix, directory, newest.manifest_sha256)
        return directory

    def losses(self, job_id: str) -> dict[int, float]:
        steps = (event.payload for event in self.yard.events(job_id) if event.kind == "step")
        return {step["step"]: step["scalars"]["train/loss"] for step in steps}

    def launcher(self, job_id: str) -> psutil.Process:
        return self.yard.child(job_id)

    def trainers(self, job_id: str, count: int) -> list[psutil.Process]:
        """Return the processes of a running job by rank."""
        launcher = self.launcher(job_id)
        until(lambda: len(launcher.children()) == count, what="all trainers", show=self.yard.log_text)
        return sorted(launcher.children(), key=lambda process: process.create_time())


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    folder = tmp_path_factory.mktemp("parallel")
    with open_yard(folder / "yard", canonical_scenes(folder), stall_floor="20") as yard:
        yard.start_worker(TRAINYARD_WORKER_THREADS="2")
        yield Trials(yard, folder)


def crew_of(size: int, act: Callable[[Crew], T], *, meeting: Path) -> list[T]:
    """Run a function as every member of a crew, with threads in place of processes, and return what each returned."""

    def take_part(rank: int) -> T:
        with joined(rank, size, meeting=meeting, device=torch.device("cpu"), has_own_device=True) as crew:
            return act(crew)

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(take_part, range(size)))


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
