"""What every game of a generator against a discriminator has: its losses on logits in fp32, and how networks start.

Real is 1, generated is 0. Logits are one a sample, or a map of them, each of one patch of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

GameName = Literal["nonsat", "minimax", "lsgan", "hinge"]


def discriminator_loss(name: GameName, real: Tensor, fake: Tensor, *, label_noise: float = 0.0) -> Tensor:
    """Return what the discriminator minimises for logits of real and of generated samples."""
    match name:
        case "lsgan":
            return 0.5 * ((real - 1).square().mean() + fake.square().mean())
        case "hinge":
            return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
        case _:
            shift_real, shift_fake = (_shift(logits, label_noise) for logits in (real, fake))
            return _against(real, 1 - shift_real) + _against(fake, shift_fake)


def generator_loss(name: GameName, fake: Tensor) -> Tensor:
    """Return what the generator minimises for logits of its samples."""
    match name:
        case "minimax":
            return -functional.softplus(fake).mean()
        case "lsgan":
            return 0.5 * (fake - 1).square().mean()
        case "hinge":
            return -fake.mean()
        case _:
            return functional.softplus(-fake).mean()


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Make no gradients of these modules' weights: those of the discriminator are a third of the generator's step."""
    for module in modules:
        module.requires_grad_(False)
    try:
        yield
    finally:
        for module in modules:
            module.requires_grad_(True)


def small_weights(module: nn.Module) -> None:
    """Start as Radford et al. (2016) do: weights N(0, 0.02), scales of norms N(1, 0.02)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)


def _against(logits: Tensor, target: Tensor) -> Tensor:
    # softplus(-x) where the target is 1, softplus(x) where it is 0
    return functional.binary_cross_entropy_with_logits(logits, target)


def _shift(logits: Tensor, most: float) -> Tensor:
    return most * torch.rand_like(logits) if most else torch.zeros_like(logits)
