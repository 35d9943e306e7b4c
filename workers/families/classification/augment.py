"""Random changes of a batch of images and labels, as torchvision's transforms draw them from a step's own seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from workers.families.classification.config import Augment, Data


@dataclass(frozen=True, slots=True)
class Exchange:
    """With whom each image of a batch shares its label; `weight` is what its own label keeps."""

    partner: Tensor
    weight: float


class ImageAugment:
    """Changes images one by one, then the batch. Call it under `seeded_rng`: it draws from the global generators."""

    def __init__(self, config: Augment, data: Data, *, num_classes: int, max_steps: int, steps_per_epoch: int) -> None:
        self._config, self._max_steps, self._steps_per_epoch = config, max_steps, steps_per_epoch
        self._num_classes = num_classes
        self._each = v2.Compose(_each(config, data))
        self._mixes = _mixes(config, num_classes)

    def __call__(self, images: Tensor, labels: Tensor, *, step: int) -> tuple[Tensor, Tensor, Exchange | None]:
        """Return float images from 0 to 1 (N, C, S, S), soft labels (N, K), and whom features are exchanged with."""
        config = self._config
        changed = torch.stack([self._each(image) for image in images]).float().div_(255)
        if config.noise:
            changed = (changed + config.noise * torch.randn(changed.shape)).clamp_(0, 1)
        targets = functional.one_hot(labels, self._num_classes).float()
        if self._is_pairing(step):
            paired = torch.rand(len(changed)) < config.pairing
            changed = torch.where(paired[:, None, None, None], (changed + changed.roll(1, 0)) / 2, changed)
        if self._mixes:
            mix = self._mixes[int(torch.randint(len(self._mixes), ()))]
            changed, targets = mix(changed, labels)
        exchange = None
        if config.moex and float(torch.rand(())) < config.moex:
            exchange = Exchange(partner=torch.randperm(len(changed)), weight=config.moex_weight)
        return changed, targets, exchange

    def _is_pairing(self, step: int) -> bool:
        """Return whether images are paired at a step: in turns, between a start and an end without (Inoue 2018)."""
        start, end = (round(part * self._max_steps) for part in self._config.pairing_off)
        on, off = self._config.pairing_cycle
        epoch = (step - start) // self._steps_per_epoch
        return self._config.pairing > 0 and start <= step < end and epoch % (on + off) < on


def exchange_moments(maps: Tensor, partner: Tensor) -> Tensor:
    """Give every image the moments of its partner (MoEx, Li et al. 2021, section 3.2).

    `maps` are features (N, C, H, W); mean and standard deviation are over the channels at each place.
    """
    mean = maps.mean(1, keepdim=True)
    deviation = (maps.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return (maps - mean) / deviation * deviation[partner] + mean[partner]


def _each(config: Augment, data: Data) -> list[v2.Transform]:
    size = data.image_size
    steps: list[v2.Transform] = []
    if config.crop_scale != (1.0, 1.0):
        steps.append(v2.RandomResizedCrop(size, config.crop_scale, config.crop_ratio, antialias=True))
    elif data.stored_size > size:
        steps.append(v2.RandomCrop(size))
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    if config.trivial:
        steps.append(v2.TrivialAugmentWide())
    if config.jitter:
        steps.append(v2.ColorJitter(config.jitter, config.jitter, config.jitter))
    if config.erasing:
        steps.append(v2.RandomErasing(config.erasing))
    return steps or [v2.Identity()]


def _mixes(config: Augment, num_classes: int) -> list[v2.Transform]:
    mixes: list[v2.Transform] = []
    if config.mixup:
        mixes.append(v2.MixUp(alpha=config.mixup, num_classes=num_classes))
    if config.cutmix:
        mixes.append(v2.CutMix(alpha=config.cutmix, num_classes=num_classes))
    return mixes
