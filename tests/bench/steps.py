"""Steps a second through the platform over a bare loop of the same recipe, in interleaved runs.

A machine's speed drifts by more than what is measured, so each run is compared with its neighbours in time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from services.client.sdk import Trainyard
from services.datasets.digit_scenes import write_digit_scenes
from tests.stack.data import import_folder
from tests.stack.platform import Stack, control_plane

RECIPE = "detection/yolo_v1"
STEPS = 200
ROUNDS = 12
CONFIG = {
    "runtime": {"precision": "fp32", "channels_last": "on"},
    "limits": {
        "max_steps": STEPS,
        "log_every_steps": 10,
        "checkpoint_every_steps": 100,
        "evaluate_every_steps": STEPS,
        "sample_every_steps": STEPS,
    },
}


def through_platform(yard: Trainyard) -> tuple[float, dict[str, Any]]:
    """Return steps a second after the first fifth of the steps, and the resolved config."""
    job = yard.create_job(RECIPE, dataset="digits", preset="digits", config=CONFIG)
    seen: list[tuple[int, float]] = []
    for event in yard.watch(job.name):
        if event.WhichOneof("payload") == "step" and event.step.step >= STEPS // 5:
            seen.append((event.step.step, time.perf_counter()))
    (first, begin), (last, end) = seen[0], seen[-1]
    return (last - first) / (end - begin), MessageToDict(job)["config"]


def bare(config: dict[str, Any], dataset_dir: Path, threads: int) -> float:
    arguments = [RECIPE, json.dumps(config), str(dataset_dir), str(threads), str(STEPS)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bare_loop", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def run(directory: Path) -> dict[str, Any]:
    threads = os.cpu_count() or 1
    with control_plane(directory / "state") as stack, stack.client() as yard:
        stack.start_worker("worker")
        write_digit_scenes(directory / "digits", seed=0, train_images=512, val_images=32)
        import_folder(yard, directory / "digits", dataset_id="digits")
        _, config = through_platform(yard)
        platform, loop = [], [bare(config, cached_dataset(stack), threads)]
        for _ in range(ROUNDS):
            platform.append(through_platform(yard)[0])
            loop.append(bare(config, cached_dataset(stack), threads))
    ratios = [one / statistics.mean(pair) for one, pair in zip(platform, pairwise(loop), strict=True)]
    return {
        "steps_ratio_over_bare_loop": round(statistics.median(ratios), 4),
        "steps_ratio_quartiles": [round(value, 4) for value in statistics.quantiles(ratios)],
        "steps_per_second": {
            "platform": round(statistics.median(platform), 3),
            "bare_loop": round(statistics.median(loop), 3),
        },
    }


def cached_dataset(stack: Stack) -> Path:
    """Return the canonical dataset that the worker trained on."""
    (found,) = (stack.state_dir / "cache").rglob("dataset.json")
    return found.parent
