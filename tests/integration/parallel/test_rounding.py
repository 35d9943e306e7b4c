"""Whole updates of recipes shared by a crew, in double precision, where only rounding would be forgiven.

In single precision some trainings grow any rounding: Adam takes the sign of gradients that are nearly nothing, and
hard negatives swap places. What differs there and not here is no fault of sharing.
"""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from tests.builders.segmentation_scenes import write_segmentation_scenes
from tests.integration.parallel.conftest import crew_of
from tests.integration.workers.yard import canonical_scenes
from workers.engine import rng
from workers.engine.crew import ALONE, Crew
from workers.engine.parallel import Parallel
from workers.engine.parts import part_of
from workers.families.base import Placement, Recipe, TrainState
from workers.families.catalog import CATALOG

STEPS = 20
BATCH = 8
PROCESSES = 3
TOLERANCE = 1e-9
_DRAWING = threading.Lock()
"""Threads share the global generators, which augmentation seeds for a batch; processes do not."""
CASES: dict[str, dict[str, Any]] = {
    "detection/yolo_v1": {},
    "detection/ssd": {},
    "classification/mobilenet": {"augment": {"mixup": 0.2}},
    # Shrunken and shifted images leave some more pixels without a label than others.
    "segmentation/fcn": {"augment": {"scale": (0.4, 1.0), "translate": 0.4}},
}


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch, loopback: None) -> None:
    """Keep `float()` from going back to single precision: what calls it wants no less, and more is as good."""
    single = Tensor.float
    monkeypatch.setattr(Tensor, "float", lambda it: it if it.dtype == torch.float64 else single(it))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("datasets")
    folders = {
        "classification": write_digits(root / "digits", size=16, train=24, val=4, classes=3),
        "segmentation": write_segmentation_scenes(root / "masks", train=24, val=4),
    }
    found = {"detection": canonical_scenes(root)}
    for family, folder in folders.items():
        found[family] = root / f"canonical-{family}"
        found[family].mkdir()
        import_folder(folder, found[family], source_format=None, limits=ImportLimits())
    return found


class Trainee:
    """A recipe with its freshly built state in double precision."""

    def __init__(self, recipe: str, dataset_dir: Path) -> None:
        entry = CATALOG[recipe]
        config = entry.load_config().preset("tiny").model_dump(mode="json")
        for section, values in CASES[recipe].items():
            config[section] |= values
        config["data"]["batch_size"] = BATCH
        config["schedule"]["warmup_steps"] = 0
        config["limits"]["max_steps"] = STEPS
        self._recipe: Recipe[Any, Any] = entry.load_recipe()(entry.load_config().model_validate(config), dataset_dir)
        self._placement = Placement(torch.device("cpu"), None, torch.contiguous_format)
        # Threads share the generators, so states are built one after the other.
        rng.seed_all(0)
        self._state: TrainState = self._recipe.build(self._placement)
        for module in self._state.modules.values():
            module.double()

    def train(self, crew: Crew) -> dict[str, Tensor]:
        """Do all updates as a member of a crew and return the parameters and buffers that come out."""
        parallel = Parallel(crew, batch_size=BATCH, seed=0)
        placement = dataclasses.replace(self._placement, mean_count=parallel.mean_count)
        source = part_of(self._recipe.train_batches(), parallel)
        parallel.join(self._state)
        for step in range(STEPS):
            self._state.step = step
            with _DRAWING:
                batch = source.batch(step)
            self._recipe.train_step(self._state, _doubled(self._recipe.to_device(batch, placement)), placement)
        modules = self._state.modules.items()
        return {f"{name}.{key}": value for name, one in modules for key, value in one.state_dict().items()}


def _doubled(batch: Any) -> Any:
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    wide = {name: one.double() for name, one in values.items() if isinstance(one, Tensor) and one.is_floating_point()}
    return dataclasses.replace(batch, **wide)


@pytest.mark.parametrize("recipe", CASES)
def test_what_several_processes_train_is_exactly_what_one_trains(
    recipe: str, datasets: dict[str, Path], tmp_path: Path
) -> None:
    data = datasets[recipe.partition("/")[0]]
    expected = Trainee(recipe, data).train(ALONE)
    trainees = [Trainee(recipe, data) for _ in range(PROCESSES)]

    results = crew_of(PROCESSES, lambda crew: trainees[crew.rank].train(crew), meeting=tmp_path / "crew")

    for found in results:
        torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
