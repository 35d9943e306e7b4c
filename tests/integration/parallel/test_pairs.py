"""A Siamese network learns the same from its pairs in several processes as in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.faces import write_people
from tests.integration.parallel.conftest import crew_of
from workers.engine import rng
from workers.engine.crew import Crew
from workers.engine.parallel import Parallel
from workers.engine.parts import part_of
from workers.families.base import Placement, TrainState
from workers.families.face.config import SiameseConfig
from workers.families.face.siamese import Siamese

SIZE, STEPS, BATCH = 3, 5, 8
CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)


@pytest.mark.parametrize("loss", ["bce", "contrastive"])
def test_parts_of_a_batch_of_pairs_make_the_update_of_the_whole(loss: str, tmp_path: Path, loopback: None) -> None:
    recipe = Siamese(_config(loss), _faces(tmp_path))
    source = recipe.train_batches()
    # Here, since threads share the generators.
    states = [_fresh(recipe) for _ in range(1 + SIZE)]
    alone = _losses(recipe, states[0], [source.batch(step) for step in range(STEPS)], Parallel.alone())

    def act(crew: Crew) -> list[float]:
        parallel = Parallel(crew, batch_size=BATCH, seed=0)
        state, part = states[1 + crew.rank], part_of(source, parallel)
        parallel.join(state)
        return _losses(recipe, state, [part.batch(step) for step in range(STEPS)], parallel)

    together = crew_of(SIZE, act, meeting=tmp_path / "crew")

    assert together == [pytest.approx(alone, rel=1e-4)] * SIZE
    expected = states[0].modules["network"].state_dict()
    for state in states[1:]:
        found = state.modules["network"].state_dict()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def _config(loss: str) -> SiameseConfig:
    config = SiameseConfig.preset("tiny").model_dump()
    # Of AdamW's first steps only the signs of gradients count, and rounding decides those near zero.
    config["optim"] |= {"name": "sgd", "lr": 0.05}
    config["data"]["batch_size"] = BATCH
    config["loss"]["name"] = loss
    return SiameseConfig.model_validate(config)


def _faces(directory: Path) -> Path:
    folder = write_people(directory / "people", train=(6, 3), val=(2, 2))
    canonical = directory / "canonical"
    canonical.mkdir()
    import_folder(folder, canonical, source_format=None, limits=ImportLimits(), family="face")
    return canonical


def _fresh(recipe: Siamese) -> TrainState:
    rng.seed_all(1)
    return recipe.build(CPU)


def _losses(recipe: Siamese, state: TrainState, batches: list[Any], parallel: Parallel) -> list[float]:
    placement = replace(CPU, mean_count=parallel.mean_count)
    losses: list[Tensor] = []
    for batch in batches:
        scalars = recipe.train_step(state, recipe.to_device(batch, placement), placement)
        losses.append(parallel.mean(scalars)["train/loss"])
        state.step += 1
    return [float(loss) for loss in losses]
