"""Steps a second through the platform over a bare loop of the same recipe, by turns on the same cores.

A shared machine's speed drifts by more than what is measured, so all train at once and each is halted while another
has its turn: the API server, the controller, the worker and its trainer as one, the bare loop as another. A second
bare loop keeps freed memory as trainers do: over that one, a ratio tells what the platform costs and nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict

from services.client.sdk import Trainyard
from services.datasets.digit_scenes import write_digit_scenes
from tests.bench.turns import Contestant
from tests.stack.data import import_folder
from tests.stack.platform import Stack, control_plane, wait_until

RECIPE = "detection/yolo_v1"
LOG_STEPS = 10
WARM_UP_STEPS = 40
TURN_SECONDS = 10.0
"""Longer than what the platform does at intervals, most of it each second: what came due meanwhile is done at once."""
ROUNDS = 16
CONFIG = {
    "runtime": {"precision": "fp32", "channels_last": "on"},
    "limits": {
        "max_steps": 1_000_000,
        "log_every_steps": LOG_STEPS,
        "checkpoint_every_steps": 100,
        "evaluate_every_steps": 1_000_000,
        "sample_every_steps": 1_000_000,
    },
}


class Progress:
    """Steps of one contestant, and when on its clock they were told."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.steps: list[int] = []
        self.seconds: list[float] = []

    def tell(self, step: int) -> None:
        self.seconds.append(self.contestant.clock())
        self.steps.append(step)

    def is_past(self, step: int) -> bool:
        return bool(self.steps) and self.steps[-1] >= step

    def rates(self, bounds: list[float]) -> list[float]:
        """Return steps a second between times on the contestant's clock."""
        at = np.interp(bounds, self.seconds, self.steps)
        return [float(rate) for rate in np.diff(at) / np.diff(bounds)]


def run(directory: Path) -> dict[str, Any]:
    with control_plane(directory / "state") as stack, stack.client() as yard:
        stack.start_worker("worker")
        write_digit_scenes(directory / "digits", seed=0, train_images=512, val_images=32)
        import_folder(yard, directory / "digits", dataset_id="digits")
        job = yard.create_job(RECIPE, dataset="digits", preset="digits", config=CONFIG)
        config = MessageToDict(job)["config"]
        platform = Progress(Contestant(lambda: [process.pid for process in stack.processes.values()]))
        with watched(yard, job.name, platform):
            warm_up(platform)
            with (
                bare_loop(config, cached_dataset(stack), memory="returned") as bare,
                bare_loop(config, cached_dataset(stack), memory="kept") as tuned,
            ):
                platform_rates, bare_rates, tuned_rates = take_turns(platform, bare, tuned)
            platform.contestant.go()
            yard.cancel_job(job.name)
    return {
        **ratio("steps_ratio_over_bare_loop", platform_rates, bare_rates),
        **ratio("steps_ratio_over_bare_loop_with_kept_memory", platform_rates, tuned_rates),
        "steps_per_second": {
            "platform": round(statistics.median(platform_rates), 3),
            "bare_loop": round(statistics.median(bare_rates), 3),
            "bare_loop_with_kept_memory": round(statistics.median(tuned_rates), 3),
        },
    }


def ratio(name: str, rates: list[float], others: list[float]) -> dict[str, Any]:
    ratios = [one / other for one, other in zip(rates, others, strict=True)]
    return {
        name: round(statistics.median(ratios), 4),
        f"{name}_quartiles": [round(value, 4) for value in statistics.quantiles(ratios)],
    }


def warm_up(progress: Progress) -> None:
    """Wait for its first steps, then halt it."""
    wait_until(lambda: progress.is_past(WARM_UP_STEPS), what="training begins", limit_seconds=300)
    progress.contestant.stop()


def take_turns(*contestants: Progress) -> list[list[float]]:
    """Let each train in turn, and return its steps a second by turn."""
    bounds: list[list[float]] = [[one.contestant.clock()] for one in contestants]
    for _ in range(ROUNDS):
        for one, times in zip(contestants, bounds, strict=True):
            one.contestant.go()
            time.sleep(TURN_SECONDS)
            one.contestant.stop()
            times.append(one.contestant.clock())
    return [one.rates(times) for one, times in zip(contestants, bounds, strict=True)]


@contextmanager
def watched(yard: Trainyard, job: str, progress: Progress) -> Iterator[None]:
    """Write down the steps of a job that is told to end before the block does."""

    def watch() -> None:
        for event in yard.watch(job):
            if event.WhichOneof("payload") == "step":
                progress.tell(event.step.step)

    progress.contestant.go()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    watcher.join(120)


@contextmanager
def bare_loop(config: dict[str, Any], dataset_dir: Path, *, memory: str) -> Iterator[Progress]:
    threads = str(os.cpu_count() or 1)
    arguments = [RECIPE, json.dumps(config), str(dataset_dir), threads, str(LOG_STEPS), memory]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bare_loop", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        stdout=subprocess.PIPE,
        text=True,
    )
    progress = Progress(Contestant(lambda: [process.pid]))
    progress.contestant.go()

    def read() -> None:
        for line in process.stdout or ():
            progress.tell(int(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        warm_up(progress)
        yield progress
    finally:
        process.kill()
        process.wait()
        reader.join()


def cached_dataset(stack: Stack) -> Path:
    """Return the canonical dataset that the worker trains on."""
    (found,) = (stack.state_dir / "cache").rglob("dataset.json")
    return found.parent
