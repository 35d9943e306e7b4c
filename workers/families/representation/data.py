"""Training batches of images without labels, and the noise that a step needs: pure functions of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.engine.data import ShuffledBatches, seeded_rng
from workers.families.images import MEAN, STD, normalise
from workers.families.records import RecordSet
from workers.families.shaped import ShapedImages

FAMILIES = ("images", "classification", "face")

Change = Callable[[Tensor], Tensor]
"""Changes uint8 images (N, C, H, W) at random, with draws from the global generators."""
Draw = Callable[[int], Tensor]
"""Draws the noise of so many images (N, ...) from the global generators."""


@dataclass(frozen=True, slots=True)
class Batch:
    """uint8 images (N, C, H, W) until they are on the device; and a row of noise for each."""

    images: Tensor
    noise: Tensor


class TrainBatches:
    """Changed images as a pure function of the step.

    Noise is drawn here: so each image has its own, however many processes share a batch or parts it is trained in.
    """

    def __init__(self, images: ShapedImages, *, batch_size: int, seed: int, change: Change, draw: Draw) -> None:
        self._images, self._seed, self._change, self._draw = images, seed, change, draw
        self._order = ShuffledBatches(seed=seed, count=len(images), batch_size=batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        images = self._images.gather(np.asarray(self._order.indices(step)))
        with seeded_rng(self._seed, step):
            return Batch(self._change(images), self._draw(len(images)))


def flipped(images: Tensor, chance: float) -> Tensor:
    """Mirror each image by chance."""
    if chance == 0:
        return images
    is_turned = torch.rand(len(images)) < chance
    return torch.where(is_turned[:, None, None, None], images.flip(-1), images)


def to_unit(pixels: Tensor) -> Tensor:
    """Turn uint8 images into 0 to 1."""
    return pixels.float() / 255


def to_input(pixels: Tensor) -> Tensor:
    """Turn uint8 images into what a transformer sees: grey from -1 to 1, colour normalised as for ImageNet."""
    return pixels.float() / 127.5 - 1 if pixels.shape[1] == 1 else normalise(pixels)


def unit_scale(channels: int) -> Tensor:
    """Return by what differences of `to_input` are to be multiplied to be those of pixels from 0 to 1, (C, 1, 1)."""
    return torch.tensor((0.5,) if channels == 1 else STD)[:, None, None]


def from_input(images: Tensor) -> Tensor:
    """Turn what a transformer finds, (C, H, W), into uint8."""
    middle = torch.tensor((0.5,) if len(images) == 1 else MEAN)[:, None, None]
    return ((images * unit_scale(len(images)) + middle).clamp(0, 1) * 255).round().to(torch.uint8)


def judging_labels(train: RecordSet, held_out: RecordSet) -> tuple[Tensor, Tensor] | None:
    """Return the classes of both splits; None where there are none, or none that both share, such as people's names."""
    if not (train.meta.classes and train.has_labels and held_out.has_labels):
        return None
    return train.labels, held_out.labels
