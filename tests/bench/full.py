"""Each recipe's `full` preset at its paper's size on a GPU in bf16: samples a second, and memory beside its estimate.

Every recipe trains in the engine in a process of its own, so that peaks do not mix. `make bench` does this where torch
finds a GPU; with `python -m tests.bench.full --device cpu --preset tiny --steps 10` the command itself can be tried
without one. On a CPU the peak is the process's whole resident memory, with torch itself in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from services.datasets.shape_scenes import write_shape_scenes
from tests.builders.digits import write_digits
from tests.builders.domains import write_two_digits
from tests.builders.english import write_english
from tests.builders.faces import write_people
from tests.builders.pairs import write_outlines
from tests.builders.points import write_gaussian
from tests.builders.reversals import write_reversals
from tests.builders.segmentation_scenes import write_segmentation_scenes
from workers.families.catalog import CATALOG, family_of
from workers.families.config import RecipeConfig
from workers.families.gan.units_config import FindUnitsConfig

STEPS = 200
PRECISION = "bf16"
TRAIN, VAL = 128, 64
"""Samples of each split: the training ones are all decoded before steps are timed."""

LEFT_OUT = "torch finds no GPU here; where there is one, python -m tests.bench --only full measures"

WRITE: Mapping[str, Callable[[Path, int], object]] = {
    "classification": lambda folder, size: write_digits(folder, size=size, train=TRAIN, val=VAL),
    "detection": lambda folder, size: write_shape_scenes(folder, seed=0, train_images=TRAIN, val_images=VAL, size=size),
    "domains": lambda folder, size: write_two_digits(folder, train=TRAIN, val=VAL, size=size),
    "face": lambda folder, size: write_people(folder, train=(TRAIN // 4, 4), val=(VAL // 4, 4), size=size),
    "parallel_text": lambda folder, size: write_reversals(folder, train=TRAIN, val=VAL),
    "pairs": lambda folder, size: write_outlines(folder, train=TRAIN, val=VAL, size=size),
    "points": lambda folder, size: write_gaussian(folder, train=TRAIN, val=VAL),
    "segmentation": lambda folder, size: write_segmentation_scenes(folder, train=TRAIN, val=VAL, size=size),
    "text": lambda folder, size: write_english(folder),
}
"""Writes the data of a family, pictures of this many pixels a side."""


def run(directory: Path) -> dict[str, Any]:
    from torch import cuda

    if not cuda.is_available():
        return {"full": {"left_out": LEFT_OUT}}
    return {"full": measure_all(directory, sorted(CATALOG), device="cuda", preset="full", steps=STEPS)}


def measure_all(
    directory: Path, recipes: Sequence[str], *, device: str, preset: str, steps: int
) -> dict[str, dict[str, Any]]:
    figures = {}
    for name in recipes:
        config = CATALOG[name].load_config().preset(preset)
        dataset_dir = write_dataset(directory / "data", dataset_family(name), written_size(config))
        figures[name] = measure(name, config, dataset_dir, directory, device=device, steps=steps)
        print(json.dumps({name: figures[name]}), flush=True)
    return figures


def measure(
    name: str, config: RecipeConfig, dataset_dir: Path, directory: Path, *, device: str, steps: int
) -> dict[str, Any]:
    """Return the figures of one recipe, or under `failed` why there are none."""
    told = trained(name, timed(config, steps), dataset_dir, directory, device=device, steps=steps)
    batch_size = config.data.batch_size
    return {
        **({"failed": told["failed"]} if told["failed"] else summary(told["frames"], warm_up(batch_size, steps))),
        "precision": told["precision"],
        "image_size": image_size(config),
        "batch_size": batch_size,
        "device": told["device"],
    }


def trained(
    name: str, config: Mapping[str, Any], dataset_dir: Path, directory: Path, *, device: str, steps: int
) -> dict[str, Any]:
    """Train in a process of its own, and return what `tests.bench.full_steps` prints."""
    with tempfile.TemporaryDirectory(dir=directory) as work:
        plan = {
            "job_id": "bench",
            "attempt": 1,
            "token": 1,
            "recipe": name,
            "config": config,
            "dataset_dir": str(dataset_dir),
            "device": device,
            "threads": os.cpu_count() or 1,
            "cache_dir": f"{work}/cache",
            "spool_dir": work,
        }
        command = [sys.executable, "-m", "tests.bench.full_steps", json.dumps(plan), str(steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"failed": f"its process ended with status {done.returncode}", "precision": "", "device": device}
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def summary(frames: Sequence[Mapping[str, Any]], after: int) -> dict[str, Any]:
    """Return the figures of an attempt's step frames; only steps beyond `after` are timed."""
    timed_seconds = timed_samples = 0.0
    for earlier, later in pairwise(frames):
        if earlier["step"] >= after:
            seconds = (later["step"] - earlier["step"]) * later["step_ms"] / 1000
            timed_seconds += seconds
            timed_samples += seconds * later["samples_s"]
    last = frames[-1]
    return {
        "samples_per_second": round(timed_samples / timed_seconds, 2),
        "peak_memory_bytes": last["mem"]["peak_bytes"],
        "estimated_memory_bytes": last["mem"]["static_estimate_bytes"],
        "steps": last["step"],
    }


def timed(config: RecipeConfig, steps: int) -> dict[str, Any]:
    """Return a preset's config, computed in bf16 and with nothing between its first `steps` steps."""
    document = config.model_dump(mode="json")
    document["runtime"] |= {"precision": PRECISION, "channels_last": "on"}
    often = ("checkpoint_every_steps", "evaluate_every_steps", "sample_every_steps")
    last = max(document["limits"]["max_steps"], steps + 1)
    document["limits"] |= {"max_steps": last, "log_every_steps": log_every(steps), **dict.fromkeys(often, last)}
    return document


def log_every(steps: int) -> int:
    return max(1, steps // 20)


def warm_up(batch_size: int, steps: int) -> int:
    """Return after how many steps all images have been decoded and kernels chosen; two log windows remain."""
    wanted = max(steps // 5, -(-TRAIN // batch_size))
    return min(wanted, steps - 2 * log_every(steps))


def image_size(config: RecipeConfig) -> tuple[int, int] | None:
    """Return height and width of what the network sees, None for points and texts."""
    data = config.generator.restored().data if isinstance(config, FindUnitsConfig) else config.data
    size = getattr(data, "image_size", None)
    if size is None or getattr(data, "source", "images") == "points":
        return None
    return (size, size) if isinstance(size, int) else size


def written_size(config: RecipeConfig) -> int:
    """Return the side of pictures that need no enlarging."""
    return max(getattr(config.data, "stored_size", 0), *(image_size(config) or (0, 0)))


def dataset_family(name: str) -> str:
    return (*CATALOG[name].datasets, family_of(name))[0]


def write_dataset(directory: Path, family: str, size: int) -> Path:
    """Return the canonical form of a family's data, written and imported once for each size."""
    place = directory / f"{family}-{size}"
    canonical = place / "canonical"
    if not canonical.exists():
        WRITE[family](place / "folder", size)
        canonical.mkdir()
        import_folder(place / "folder", canonical, source_format=None, family=family, limits=ImportLimits())
    return canonical


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", default="full", help="one that every chosen recipe has: full or tiny")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--recipe", choices=sorted(CATALOG), action="append", help="only this one; may be repeated")
    arguments = parser.parse_args()
    how = {"device": arguments.device, "preset": arguments.preset, "steps": arguments.steps}
    with tempfile.TemporaryDirectory(prefix="trainyard-bench-") as directory:
        measure_all(Path(directory), arguments.recipe or sorted(CATALOG), **how)


if __name__ == "__main__":
    main()
