"""Exponential moving averages of weights, kept in `TrainState.ema` under the module's name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

from workers.families.base import TrainState

_IS_HELD = ContextVar("is_held", default=False)


def average_of(module: nn.Module) -> nn.Module:
    """Return a copy of a module to hold its average: never trained, always in evaluation mode."""
    return copy.deepcopy(module).eval().requires_grad_(False)


@torch.no_grad()
def update(average: nn.Module, module: nn.Module, *, decay: float) -> None:
    """Move an average towards the module's weights, and take over its buffers, such as running means."""
    if _IS_HELD.get():
        return
    averaged: list[torch.Tensor] = list(average.parameters())
    current: list[torch.Tensor] = list(module.parameters())
    torch._foreach_lerp_(averaged, current, 1.0 - decay)
    for kept, buffer in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(buffer)


def follow(state: TrainState, name: str, *, decay: float) -> None:
    """Move the average of a module, if one is kept; at first it follows faster, so that it forgets the start."""
    if name in state.ema:
        decay = min(decay, (1 + state.step) / (10 + state.step))
        update(state.ema[name], state.modules[name], decay=decay)


def restart(state: TrainState) -> None:
    """Make every average what its module is now: something else than training has put weights there."""
    for name, average in state.ema.items():
        update(average, state.modules[name], decay=0.0)


@contextmanager
def held() -> Iterator[None]:
    """Keep every average as it is: an update made of parts of a batch counts once."""
    token = _IS_HELD.set(True)
    try:
        yield
    finally:
        _IS_HELD.reset(token)
