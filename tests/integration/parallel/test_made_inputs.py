"""Translation recipes that make their own inputs: the players of several processes are those of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from tests.integration.parallel.conftest import crew_of
from workers.engine import rng
from workers.engine.crew import ALONE, Crew
from workers.engine.parallel import Parallel
from workers.engine.parts import part_of
from workers.families.base import Placement
from workers.families.catalog import CATALOG

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
STEPS, BATCH = 3, 6
CASES: dict[str, dict[str, Any]] = {
    "translation/inpaint": {"hole": {"kind": "random", "overlap": 2}},
    "translation/colorize": {},
    "translation/srgan": {"loss": {"game": 0.1, "perceptual": 0.0}, "data": {"image_size": 16}, "pretrain_steps": 1},
}


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    stored = root / "canonical"
    stored.mkdir()
    folder = write_digits(root / "folder", size=32, train=12, val=8, classes=2)
    import_folder(folder, stored, source_format=None, limits=ImportLimits())
    return stored


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(name: str, canonical: Path, tmp_path: Path) -> None:
    entry = CATALOG[name]
    config: dict[str, Any] = entry.load_config().preset("tiny").model_dump(mode="json")
    for key, value in CASES[name].items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    config["data"]["batch_size"] = BATCH
    # Where a gradient is nearly nothing, Adam follows its sign, which is rounding; low rates keep that small.
    config["optim"] |= {"lr": 1e-5, "lr_discriminator": 1e-5}
    complete = entry.load_config().model_validate(config)
    recipe = entry.load_recipe()(complete, canonical)
    rng.seed_all(0)
    start = {owner: module.state_dict() for owner, module in recipe.build(CPU).modules.items()}

    def play(crew: Crew) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
        recipe = entry.load_recipe()(complete, canonical)
        source = recipe.train_batches()
        parallel = Parallel(crew, batch_size=source.batch_size, seed=0)
        state = recipe.build(CPU)
        for owner, module in state.modules.items():
            module.load_state_dict(start[owner])
        parallel.join(state)
        batches = part_of(source, parallel)
        told = []
        for step in range(STEPS):
            scalars = recipe.train_step(state, recipe.to_device(batches.batch(step), CPU), CPU)
            told.append({key: float(value) for key, value in parallel.mean(scalars).items()})
            state.step += 1
        modules = state.modules.items()
        return told, {f"{owner}.{key}": v for owner, one in modules for key, v in one.state_dict().items()}

    expected, alone = play(ALONE)
    (found, one), (_, other) = crew_of(2, play, meeting=tmp_path / "meeting")

    assert complete.max_processes() == BATCH
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    for step in range(STEPS):
        assert found[step] == pytest.approx(expected[step], rel=1e-3)
    for key, value in alone.items():
        torch.testing.assert_close(one[key], value, atol=2e-4, rtol=1e-3)
