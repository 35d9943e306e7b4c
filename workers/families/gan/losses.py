"""The losses of the game, on logits in fp32. Real is 1, generated is 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workers.families import adversarial
from workers.families.gan.config import Loss

Judge = Callable[[Tensor], Tensor]
"""Samples (N, ...) to logits (N,)."""


def discriminator_loss(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """Return what the discriminator minimises for logits (N,) of real and of generated samples."""
    if loss.name == "wgan_gp":
        return fake.mean() - real.mean()
    return adversarial.discriminator_loss(loss.name, real, fake, label_noise=loss.label_noise)


def generator_loss(loss: Loss, fake: Tensor) -> Tensor:
    """Return what the generator minimises for logits (N,) of its samples."""
    return -fake.mean() if loss.name == "wgan_gp" else adversarial.generator_loss(loss.name, fake)


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
