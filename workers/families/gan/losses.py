"""The losses of the game, on logits in fp32. Real is 1, generated is 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.gan.config import Loss

Judge = Callable[[Tensor], Tensor]
"""Samples (N, ...) to logits (N,)."""


def discriminator_loss(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """Return what the discriminator minimises for logits (N,) of real and of generated samples."""
    match loss.name:
        case "lsgan":
            return 0.5 * ((real - 1).square().mean() + fake.square().mean())
        case "hinge":
            return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
        case "wgan_gp":
            return fake.mean() - real.mean()
        case _:
            shift_real, shift_fake = (_shift(logits, loss.label_noise) for logits in (real, fake))
            return _against(real, 1 - shift_real) + _against(fake, shift_fake)


def generator_loss(loss: Loss, fake: Tensor) -> Tensor:
    """Return what the generator minimises for logits (N,) of its samples."""
    match loss.name:
        case "minimax":
            return -functional.softplus(fake).mean()
        case "lsgan":
            return 0.5 * (fake - 1).square().mean()
        case "hinge" | "wgan_gp":
            return -fake.mean()
        case _:
            return functional.softplus(-fake).mean()


def gradient_penalty(judge: Judge, real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean of (|gradient| - 1)^2 at random points between pairs (Gulrajani et al. 2017, section 4)."""
    share = torch.rand(len(real), *(1 for _ in real.shape[1:]), device=real.device)
    between = torch.lerp(real, fake, share)
    # The norm's own gradient is 0 where the root's is not finite: at a judge that says the same of everything.
    lengths: Tensor = torch.linalg.vector_norm(_gradients(judge, between), dim=1)
    return (lengths - 1).square().mean()


def r1_penalty(judge: Judge, real: Tensor) -> Tensor:
    """Return the mean squared gradient at real samples (Mescheder et al. 2018, section 4.1)."""
    return _gradients(judge, real).square().sum(1).mean()


def _gradients(judge: Judge, samples: Tensor) -> Tensor:
    samples = samples.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(judge(samples).sum(), samples, create_graph=True)
    return gradient.flatten(1)


def _against(logits: Tensor, target: Tensor) -> Tensor:
    # softplus(-x) where the target is 1, softplus(x) where it is 0
    return functional.binary_cross_entropy_with_logits(logits, target)


def _shift(logits: Tensor, most: float) -> Tensor:
    return most * torch.rand_like(logits) if most else torch.zeros_like(logits)
