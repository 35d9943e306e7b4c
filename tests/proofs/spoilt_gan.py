"""GANs with one part spoilt each: a proof that one passes proves nothing."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from workers.families.base import Placement, TrainState
from workers.families.gan.cgan import Cgan
from workers.families.gan.data import Batch
from workers.families.gan.dcgan import CelebaConv, Dcgan
from workers.families.gan.lapgan import Lapgan
from workers.families.gan.style import StyleGenerator
from workers.families.gan.stylegan2 import StyleGan2
from workers.families.gan.vanilla import CelebaFc, Vanilla


def _noise(batch: Batch) -> Batch:
    return dataclasses.replace(batch, samples=torch.randn_like(batch.samples))


class VanillaOnNoise(Vanilla):
    """Its discriminator takes noise for real."""

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return _noise(super().to_device(batch, placement))


class DcganOnNoise(Dcgan):
    """Its discriminator takes noise for real."""

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return _noise(super().to_device(batch, placement))


class CelebaFcOnNoise(CelebaFc):
    """Its discriminator takes noise for real."""

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return _noise(super().to_device(batch, placement))


class CelebaConvOnNoise(CelebaConv):
    """Its discriminator takes noise for real."""

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return _noise(super().to_device(batch, placement))


class CganWithLabelsShuffled(Cgan):
    """Its real images carry each other's classes."""

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        moved = super().to_device(batch, placement)
        assert moved.labels is not None
        return dataclasses.replace(moved, labels=moved.labels.roll(1))


class LapganWithoutDetail(Lapgan):
    """Only its bottom learns: the levels add what they were born with."""

    def _train_level(
        self, state: TrainState, reals: list[tuple[Tensor, Tensor | None]], placement: Placement, *, level: int
    ) -> dict[str, Tensor]:
        if level == 0:
            return super()._train_level(state, reals, placement, level=level)
        zero = torch.zeros((), device=placement.device)
        return {f"train/loss_{level}": zero, f"train/loss_generator_{level}": zero}


class StyleGan2WithDeafLayers(StyleGan2):
    """All but the finest of its layers hear the mean style only, so that nothing is coarse."""

    def new_generator(self) -> StyleGenerator:
        generator = super().new_generator()
        assert isinstance(generator, StyleGenerator)
        for conv in list(generator.convs)[:-1]:
            torch.nn.init.zeros_(conv.conv.style.weight).requires_grad_(False)
        return generator
