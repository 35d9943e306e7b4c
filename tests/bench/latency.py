"""From CreateJob to the first training step reaching the client, on a warm worker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from services.client.sdk import Trainyard
from services.datasets.shape_scenes import write_shape_scenes
from tests.bench.figures import summary
from tests.stack.data import import_folder
from tests.stack.platform import control_plane

REPEATS = 20
CONFIG = {"limits": {"max_steps": 2, "log_every_steps": 1}}


def first_step_seconds(yard: Trainyard) -> float:
    """Submit, wait for the first step event, then let the job end so that the next finds the worker idle."""
    begin = time.perf_counter()
    job = yard.create_job("detection/yolo_v1", dataset="shapes", preset="tiny", config=CONFIG)
    seconds = 0.0
    for event in yard.watch(job.name):
        if event.WhichOneof("payload") == "step" and not seconds:
            seconds = time.perf_counter() - begin
    return seconds


def run(directory: Path) -> dict[str, Any]:
    with control_plane(directory / "state") as stack, stack.client() as yard:
        stack.start_worker("worker")
        write_shape_scenes(directory / "shapes", seed=0, train_images=64, val_images=8)
        import_folder(yard, directory / "shapes", dataset_id="shapes")
        for _ in range(2):
            first_step_seconds(yard)
        values = [first_step_seconds(yard) for _ in range(REPEATS)]
    return {"submit_to_first_step_seconds": {key: round(value, 3) for key, value in summary(values).items()}}
