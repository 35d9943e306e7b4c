"""Steps a second of a job in two processes over one process with as many threads in all, in interleaved runs.

The same batch and the same cores: what is left over or under 1 is what sharing a step by processes costs or saves
against sharing it by threads.
"""

from __future__ import annotations

import os
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainyard.v1 import job_pb2

from services.client.sdk import Trainyard
from services.datasets.digit_scenes import write_digit_scenes
from tests.stack.data import import_folder
from tests.stack.platform import control_plane

RECIPE = "detection/yolo_v1"
PROCESSES = 2
STEPS = 100
ROUNDS = 5
CONFIG = {
    "runtime": {"precision": "fp32", "channels_last": "on"},
    "limits": {
        "max_steps": STEPS,
        "log_every_steps": 10,
        "checkpoint_every_steps": STEPS,
        "evaluate_every_steps": STEPS,
        "sample_every_steps": STEPS,
    },
}


def steps_per_second(yard: Trainyard, processes: int) -> float:
    """Run a job and return its speed after the first fifth of its steps."""
    job = yard.create_job(
        RECIPE,
        dataset="digits",
        preset="digits",
        config=CONFIG,
        resources=job_pb2.Resources(resource_class=job_pb2.RESOURCE_CLASS_CPU, processes=processes),
    )
    seen: list[tuple[int, float]] = []
    for event in yard.watch(job.name):
        if event.WhichOneof("payload") == "step" and event.step.step >= STEPS // 5:
            seen.append((event.step.step, time.perf_counter()))
    (first, begin), (last, end) = seen[0], seen[-1]
    return (last - first) / (end - begin)


def run(directory: Path) -> dict[str, Any]:
    threads = max(PROCESSES, os.cpu_count() or 1)
    environ = {"TRAINYARD_WORKER_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    with control_plane(directory / "state", environ) as stack, stack.client() as yard:
        stack.start_worker("worker")
        write_digit_scenes(directory / "digits", seed=0, train_images=512, val_images=32)
        import_folder(yard, directory / "digits", dataset_id="digits")
        steps_per_second(yard, 1)
        alone, together = [steps_per_second(yard, 1)], []
        for _ in range(ROUNDS):
            together.append(steps_per_second(yard, PROCESSES))
            alone.append(steps_per_second(yard, 1))
    ratios = [one / statistics.mean(pair) for one, pair in zip(together, pairwise(alone), strict=True)]
    return {
        "parallel_ratio_over_one_process": round(statistics.median(ratios), 4),
        "parallel_ratio_quartiles": [round(value, 4) for value in statistics.quantiles(ratios)],
        "parallel_steps_per_second": {
            "processes": PROCESSES,
            "threads_in_all": threads,
            "together": round(statistics.median(together), 3),
            "one_process": round(statistics.median(alone), 3),
        },
    }
