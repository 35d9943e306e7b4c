"""Translation recipes that make their own inputs, each with one part spoilt: a proof that it passes proves nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.families.base import Placement, TrainState
from workers.families.translation.colorize import Colorize
from workers.families.translation.data import Batch
from workers.families.translation.inpaint import Inpaint
from workers.families.translation.srgan import Srgan


class BlindInpaint(Inpaint):
    """It learns to fill holes of pictures that it sees nothing of."""

    def _hidden(self, pictures: Tensor, generator: torch.Generator) -> Batch:
        batch = super()._hidden(pictures, generator)
        return Batch(torch.cat([torch.zeros_like(batch.a[:, :3]), batch.a[:, 3:]], 1), batch.b)


class ShuffledSrgan(Srgan):
    """It learns to make other crops of the small ones than those they come from."""

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        return super().train_step(state, Batch(batch.a, batch.b.roll(1, 0)), placement)


class BlindColorize(Colorize):
    """It learns the colours of pictures that it sees nothing of."""

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        made = super().to_device(batch, placement)
        return Batch(torch.zeros_like(made.a), made.b)
