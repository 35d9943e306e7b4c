"""Moves in the latent space of a generator: draws, walks, sums and directions of vectors.

A draw depends on its seed alone, so that a picture keeps its seed whatever it is drawn beside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["slerp", "lerp"]
MAX_ECHO = 2**16
"""Numbers of the latents in an answer; more are left out, and seeds stand for them."""

_PARALLEL = 1e-4
"""Radians; the arc between closer directions is a line to fp32."""


class LatentInvalid(ValueError):
    """These vectors do not define what was asked for; the message says why."""


def draw(seeds: Sequence[int], size: int) -> Tensor:
    """Return one latent of N(0, 1) a seed, float32 (N, size)."""
    return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def renormalise(z: Tensor) -> Tensor:
    """Scale vectors (..., D) to the length sqrt(D), near which nearly all draws of many dimensions lie.

    Raises:
        LatentInvalid: a vector is zero.
    """
    lengths = z.norm(dim=-1, keepdim=True)
    if bool((lengths < 1e-6).any()):
        raise LatentInvalid("the sum is the zero vector, which has no direction; change the terms")
    scaled: Tensor = z * (math.sqrt(z.shape[-1]) / lengths)
    return scaled


def walk(start: Tensor, end: Tensor, steps: int, mode: Mode = "slerp") -> Tensor:
    """Return `steps` latents (steps, D) from one vector to another; the first and the last are exactly these.

    slerp keeps the length of what it passes, as a draw of many dimensions has it (White 2016, section 2.1).

    Raises:
        LatentInvalid: slerp between opposite vectors, or from or to zero: there is no one arc.
    """
    shares = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    one, other = start.double(), end.double()
    path = _slerp(one, other, shares) if mode == "slerp" else (1 - shares) * one + shares * other
    path = path.to(start.dtype)
    path[0], path[-1] = start, end
    return path


def _slerp(one: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    lengths = one.norm() * other.norm()
    if float(lengths) == 0:
        raise LatentInvalid("a zero vector has no direction to turn from; use mode lerp")
    angle = torch.arccos((one @ other / lengths).clamp(-1, 1))
    if float(angle) < _PARALLEL:
        return (1 - shares) * one + shares * other
    if math.pi - float(angle) < _PARALLEL:
        raise LatentInvalid("opposite vectors have no one arc between them; use mode lerp")
    return (((1 - shares) * angle).sin() * one + (shares * angle).sin() * other) / angle.sin()


def combine(groups: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return the sum of signed means of groups (N, D), such as a - b + c (Radford et al. 2016, section 6.3.1)."""
    return torch.stack([sign * group.mean(0) for sign, group in groups]).sum(0)


def jittered(z: Tensor, seeds: Sequence[int], scale: float) -> Tensor:
    """Return a vector (D,) with a draw times `scale` added for each seed, (N, D)."""
    return z + scale * draw(seeds, len(z))


def direction(with_it: Tensor, without: Tensor) -> Tensor:
    """Return the way (D,) from the mean of latents without an attribute to the mean of those with it."""
    return with_it.mean(0) - without.mean(0)


def shifted(z: Tensor, way: Tensor, strengths: Sequence[float]) -> Tensor:
    """Return latents (N, D) moved along a direction by each strength, (N * S, D), the strengths of one beside each other."""
    steps = torch.tensor(strengths, dtype=z.dtype)[:, None] * way
    return (z[:, None] + steps).flatten(0, 1)


def exact_numbers(row: Tensor) -> list[float]:
    """Return fp32 numbers with as few digits as give back the same bits."""
    return [float(str(value)) for value in row.numpy()]
