"""A dataset of four training samples for every family of datasets, and every recipe made short enough for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from services.datasets.shape_scenes import write_shape_scenes
from tests.builders.datasets import write_files
from tests.builders.digits import write_digits
from tests.builders.domains import write_two_digits
from tests.builders.faces import write_lfw
from tests.builders.pairs import write_outlines
from tests.builders.points import write_gaussian
from tests.builders.reversals import write_reversals
from tests.builders.segmentation_scenes import write_segmentation_scenes
from workers.families.base import Placement, Recipe
from workers.families.catalog import CATALOG, family_of

RECIPES = sorted(CATALOG)
BATCH = 4
# Again and again, so that a lane of it is more than one window: what was read then goes from step to step.
SMALL_TEXT = b"black cats\nold dogs\nyoung birds\nlittle fish\ngreen trees\ndeep water\ncold wind\nred apples\n" * 8
SMALL_HELD_OUT = b"old cats\nlittle birds\n"
CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)


def _detection_folder(directory: Path) -> Path:
    # A seed whose four scenes hold small and large shapes: a head for large ones learns nothing without any.
    return write_shape_scenes(directory, seed=4, train_images=BATCH, val_images=3)


def _segmentation_folder(directory: Path) -> Path:
    return write_segmentation_scenes(directory, seed=0, train=BATCH, val=3)


def _classification_folder(directory: Path) -> Path:
    return write_digits(directory, seed=0, train=BATCH, val=8, classes=2)


def _face_folder(directory: Path) -> Path:
    # Two people in each of LFW's ten folds.
    return write_lfw(directory, seed=0, train=(2, BATCH // 2), val=(20, 2), pairs=1)


def _images_folder(directory: Path) -> Path:
    return write_digits(directory, seed=0, train=BATCH, val=2, classes=2)


def _points_folder(directory: Path) -> Path:
    return write_gaussian(directory, seed=0, train=BATCH, val=16)


def _pairs_folder(directory: Path) -> Path:
    return write_outlines(directory, seed=0, train=BATCH, val=3)


def _domains_folder(directory: Path) -> Path:
    return write_two_digits(directory, seed=0, train=BATCH, val=3)


def _text_folder(directory: Path) -> Path:
    return write_files(directory, {"train.txt": SMALL_TEXT, "val.txt": SMALL_HELD_OUT})


def _parallel_text_folder(directory: Path) -> Path:
    return write_reversals(directory, train=BATCH, val=2)


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "classification": _classification_folder,
    "detection": _detection_folder,
    "domains": _domains_folder,
    "face": _face_folder,
    "images": _images_folder,
    "pairs": _pairs_folder,
    "parallel_text": _parallel_text_folder,
    "points": _points_folder,
    "segmentation": _segmentation_folder,
    "text": _text_folder,
}
FROM_A_SOURCE: dict[str, dict[str, Any]] = {
    "classification/finetune": {
        "network": {
            "recipe": "classification/mobilenet",
            "model": {"name": "small", "widths": (32, 96, 160, 160)},
        }
    }
}
"""Sections that what a job starts from fills in; here nothing starts from anything."""


def dataset_families(name: str) -> tuple[str, ...]:
    """Return the families of datasets that a recipe reads: its own unless it says otherwise."""
    return CATALOG[name].datasets or (family_of(name),)


def dataset_family(name: str) -> str:
    """Return the first family of datasets that a recipe reads."""
    return dataset_families(name)[0]


def write_stored(family: str, directory: Path) -> Path:
    """Import the family's four samples into `directory` and return their canonical form."""
    stored = directory / "canonical"
    stored.mkdir()
    import_folder(
        FOLDERS[family](directory / "folder"), stored, source_format=None, family=family, limits=ImportLimits()
    )
    return stored


def tiny(name: str, *, max_steps: int, **runtime: Any) -> dict[str, Any]:
    """Return the tiny preset made short, with batches of four."""
    config: dict[str, Any] = CATALOG[name].load_config().preset("tiny").model_dump(mode="json")
    config |= FROM_A_SOURCE.get(name, {})
    config["data"]["batch_size"] = BATCH
    config["limits"] |= {
        "max_steps": max_steps,
        "log_every_steps": 1,
        **dict.fromkeys(("checkpoint_every_steps", "evaluate_every_steps", "sample_every_steps"), max_steps),
    }
    config["runtime"] |= {"precision": "fp32", "channels_last": "off", **runtime}
    if "warmup_steps" in config.get("schedule", {}):
        config["schedule"]["warmup_steps"] = 0
    # Generators are scored on as many samples as asked for.
    for key, count in {"num_images": 20, "num_samples": BATCH}.items():
        if key in config.get("eval", {}):
            config["eval"][key] = count
    return config


def make(name: str, config: dict[str, Any], dataset_dir: Path) -> Recipe[Any, Any]:
    entry = CATALOG[name]
    return entry.load_recipe()(entry.load_config().model_validate(config), dataset_dir)
