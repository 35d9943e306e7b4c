"""Samples a second of the engine, with what its probe chose, over a plain loop of the same recipe, family by family.

Runs alternate, and each of the engine's is compared with its neighbours in time: a machine's speed drifts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from services.client.sdk import Trainyard
from services.datasets.digit_scenes import write_digit_scenes
from tests.builders.digits import write_digits
from tests.builders.faces import write_people
from tests.builders.segmentation_scenes import write_segmentation_scenes
from tests.stack.data import import_folder
from tests.stack.platform import Stack, control_plane
from workers.families.catalog import family_of

ROUNDS = 3
# From this many steps on an attempt looks for the fastest way to compute.
STEPS = 240


@dataclass(frozen=True, slots=True)
class Case:
    """A recipe with its data."""

    recipe: str
    data: Callable[[Path], object]
    preset: str = "tiny"
    dataset_family: str = ""
    """Where it is not the recipe's own."""
    config: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case(
        "classification/train",
        partial(write_digits, size=64, train=512, val=64),
        config={"data": {"image_size": 64, "stored_size": 64, "batch_size": 16}},
    ),
    Case("detection/yolo_v1", partial(write_digit_scenes, seed=0, train_images=512, val_images=20), preset="digits"),
    Case(
        "segmentation/fcn",
        partial(write_segmentation_scenes, train=256, val=10, size=96),
        config={"data": {"image_size": 96, "batch_size": 16}},
    ),
    Case("face/triplet", write_people),
    Case("gan/dcgan", partial(write_digits, size=32, train=512, val=64), dataset_family="classification"),
)


def run(directory: Path) -> dict[str, Any]:
    with control_plane(directory / "state") as stack, stack.client() as yard:
        stack.start_worker("worker")
        figures = {family_of(case.recipe): _measure(case, yard, stack, directory) for case in CASES}
    return {"families": figures}


def _measure(case: Case, yard: Trainyard, stack: Stack, directory: Path) -> dict[str, Any]:
    threads = os.cpu_count() or 1
    family = family_of(case.recipe)
    known = set((stack.state_dir / "cache").rglob("dataset.json"))
    case.data(directory / family)
    import_folder(yard, directory / family, dataset_id=family, family=case.dataset_family or family)
    # The first job also probes, and brings the data to where the plain loop reads it.
    _, config, chosen = through_engine(case, yard)
    (found,) = set((stack.state_dir / "cache").rglob("dataset.json")) - known
    engine, loop = [], [plain(case.recipe, config, found.parent, threads)]
    for _ in range(ROUNDS):
        engine.append(through_engine(case, yard)[0])
        loop.append(plain(case.recipe, config, found.parent, threads))
    ratios = [one / statistics.mean(pair) for one, pair in zip(engine, pairwise(loop), strict=True)]
    return {
        "recipe": case.recipe,
        "engine_samples_per_second": round(statistics.median(engine), 2),
        "plain_samples_per_second": round(statistics.median(loop), 2),
        "ratio": round(statistics.median(ratios), 3),
        "chosen": chosen,
    }


def through_engine(case: Case, yard: Trainyard) -> tuple[float, dict[str, Any], str]:
    """Return samples a second after the first fifth of the steps, the resolved config, and how it was computed."""
    often = dict.fromkeys(("checkpoint_every_steps", "evaluate_every_steps", "sample_every_steps"), STEPS)
    limits = {"max_steps": STEPS, "log_every_steps": 10, **often}
    config = {**case.config, "limits": limits}
    job = yard.create_job(case.recipe, dataset=family_of(case.recipe), preset=case.preset, config=config)
    resolved = MessageToDict(job)["config"]
    seen: list[tuple[int, float]] = []
    chosen = ""
    for event in yard.watch(job.name):
        kind = event.WhichOneof("payload")
        if kind == "precision":
            chosen = f"{event.precision.precision}{', channels last' if event.precision.channels_last else ''}"
        if kind == "step" and event.step.step >= STEPS // 5:
            seen.append((event.step.step, time.perf_counter()))
    (first, begin), (last, end) = seen[0], seen[-1]
    return resolved["data"]["batch_size"] * (last - first) / (end - begin), resolved, chosen


def plain(recipe: str, config: Mapping[str, Any], dataset_dir: Path, threads: int) -> float:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.bench.plain_loop",
            recipe,
            json.dumps(dict(config)),
            str(dataset_dir),
            str(threads),
            str(STEPS // 4),
        ],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)
