"""A network between pictures and the discriminator of its answers stay the same in all processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.pairs import write_outlines
from tests.integration.parallel.conftest import crew_of
from workers.engine import rng
from workers.engine.crew import Crew
from workers.engine.parallel import Parallel
from workers.engine.parts import part_of
from workers.families.base import Placement
from workers.families.translation.config import Pix2pixConfig
from workers.families.translation.pix2pix import Pix2pix

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
STEPS = 3


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_pairs_shared_by_two_processes_teach_what_they_teach_one(norm: str, tmp_path: Path) -> None:
    folder, canonical = write_outlines(tmp_path / "folder", train=8, val=2), tmp_path / "canonical"
    canonical.mkdir()
    import_folder(folder, canonical, source_format=None, family="pairs", limits=ImportLimits())
    config = Pix2pixConfig.model_validate(
        {
            "data": {"image_size": 32, "load_size": 34, "batch_size": 4},
            "model": {
                "width": 4,
                "depth": 4,
                "norm": norm,
                "dropout": 0.0,
                "discriminator_width": 4,
                "discriminator_layers": 2,
            },
            # Adam at its start divides a gradient by its own size: what is left of rounding would be a whole step.
            "optim": {"lr": 1e-5},
        }
    )

    rng.seed_all(0)
    start = {name: module.state_dict() for name, module in Pix2pix(config, canonical).build(CPU).modules.items()}

    def play(crew: Crew) -> dict[str, Tensor]:
        recipe = Pix2pix(config, canonical)
        source = recipe.train_batches()
        parallel = Parallel(crew, batch_size=source.batch_size, seed=0)
        state = recipe.build(CPU)
        # Threads share one generator, so that each would start from other weights.
        for name, module in state.modules.items():
            module.load_state_dict(start[name])
        parallel.join(state)
        batches = part_of(source, parallel)
        told = {}
        for _ in range(STEPS):
            told = parallel.mean(recipe.train_step(state, recipe.to_device(batches.batch(state.step), CPU), CPU))
            state.step += 1
        weights = {f"{name}.{key}": v for name, one in state.modules.items() for key, v in one.state_dict().items()}
        return weights | told

    (alone,) = crew_of(1, play, meeting=tmp_path / "one")
    one, other = crew_of(2, play, meeting=tmp_path / "two")

    assert config.max_processes() == 4
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert all(torch.allclose(value.float(), one[name].float(), atol=5e-5, rtol=1e-3) for name, value in alone.items())
