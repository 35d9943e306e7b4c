"""Two networks that play each other stay the same in all processes: frozen halves, two optimizers, second gradients."""

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
from workers.engine.crew import Crew
from workers.engine.parallel import Parallel
from workers.engine.parts import part_of
from workers.families.base import Placement
from workers.families.gan.cgan import Cgan
from workers.families.gan.config import CganConfig

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
STEPS = 3


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize(
    "loss",
    [
        pytest.param({"name": "nonsat"}, id="batch normalisation in both players"),
        pytest.param({"name": "wgan_gp"}, id="a gradient differentiated again"),
        pytest.param({"name": "hinge", "r1_gamma": 1.0, "r1_every": 2}, id="an update now and then"),
    ],
)
def test_a_game_of_two_processes_has_one_outcome(loss: dict[str, Any], tmp_path: Path) -> None:
    folder, canonical = write_digits(tmp_path / "folder", size=16, train=12, val=8, classes=2), tmp_path / "canonical"
    canonical.mkdir()
    import_folder(folder, canonical, source_format=None, limits=ImportLimits())
    config = CganConfig.model_validate(
        {
            "data": {"image_size": [16, 16], "channels": 1, "batch_size": 6},
            "model": {"latent_size": 4, "generator_channels": 4, "discriminator_channels": 4},
            "loss": loss,
            "optim": {"discriminator_steps": 2},
        }
    )

    def play(crew: Crew) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        recipe = Cgan(config, canonical)
        source = recipe.train_batches()
        parallel = Parallel(crew, batch_size=source.batch_size, seed=0)
        state = recipe.build(CPU)
        parallel.join(state)
        start = {name: value.clone() for name, value in _tensors(state.modules).items()}
        batches = part_of(source, parallel)
        for step in range(STEPS):
            parallel.mean(recipe.train_step(state, recipe.to_device(batches.batch(step), CPU), CPU))
            state.step += 1
        return start, _tensors(state.modules) | {f"ema.{k}": v for k, v in _tensors(state.ema).items()}

    (start, found), (_, other) = crew_of(2, play, meeting=tmp_path / "meeting")

    assert config.max_processes() > 1
    assert all(torch.equal(value, other[name]) for name, value in found.items())
    weights = [name for name in start if name.endswith("weight")]
    assert not any(torch.equal(start[name], found[name]) for name in weights)


def _tensors(modules: dict[str, Any]) -> dict[str, Tensor]:
    return {f"{owner}.{name}": value for owner, one in modules.items() for name, value in one.state_dict().items()}
