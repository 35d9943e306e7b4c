"""A text as a stream of tokens, read at several places side by side, a window a step (truncated back-propagation)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from services.core.errors import DatasetInvalid
from workers.families.base import Placement
from workers.families.text.config import LmData
from workers.families.text.lm_network import LanguageModel

_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens (N, T), those that follow each of them, and what was read before: nothing at the start of a text."""

    tokens: Tensor
    targets: Tensor
    is_first: bool
    hidden: Tensor | None = None
    """Where the network's memory is kept from step to step; the recipe puts it in."""

    def to(self, placement: Placement) -> Window:
        place = placement.device
        return replace(self, tokens=self.tokens.to(place), targets=self.targets.to(place))


class Windows:
    """The text cut into as many lanes as a batch has rows; step by step every lane is read on, and then again.

    What is left over at the ends of lanes and windows is never read: less than a window a lane.
    """

    def __init__(self, tokens: Tensor, *, data: LmData) -> None:
        self.batch_size = data.batch_size
        length = len(tokens) // data.batch_size
        if length < 2:
            needed = f"this recipe reads {data.batch_size} places side by side and needs {2 * data.batch_size}"
            text = f"the training text has {len(tokens)} tokens; {needed}"
            raise DatasetInvalid(f"{text}: add text or lower data.batch_size")
        self._size = min(data.bptt, length - 1)
        self._lanes = tokens[: length * data.batch_size].reshape(data.batch_size, length)
        self.steps_per_epoch = (length - 1) // self._size

    def batch(self, step: int) -> Window:
        start = step % self.steps_per_epoch * self._size
        return Window(
            tokens=self._lanes[:, start : start + self._size].contiguous(),
            targets=self._lanes[:, start + 1 : start + self._size + 1].contiguous(),
            is_first=start == 0,
        )


def in_whole(tokens: Tensor, *, lanes: int, size: int) -> Iterator[Window]:
    """Yield windows that ask for every token but the first exactly once; the last lane may end early."""
    count = len(tokens) - 1
    lanes = max(1, min(lanes, count // size))
    length = math.ceil(count / lanes)
    missing = lanes * length - count
    read = functional.pad(tokens[:-1], (0, missing)).reshape(lanes, length)
    asked = functional.pad(tokens[1:], (0, missing), value=_IGNORED).reshape(lanes, length)
    for start in range(0, length, size):
        yield Window(read[:, start : start + size], asked[:, start : start + size], is_first=start == 0)


@torch.inference_mode()
def total_loss(network: LanguageModel, windows: Iterator[Window], placement: Placement) -> tuple[float, int]:
    """Return the negative log likelihood of all tokens asked for, in nats, and how many they are."""
    total, count = 0.0, 0
    hidden: Tensor | None = None
    for window in windows:
        here = window.to(placement)
        if here.is_first or hidden is None:
            hidden = network.nothing_read(len(here.tokens), device=placement.device)
        with placement.autocast():
            scores, hidden = network(here.tokens, hidden)
        total += float(cross_entropy(scores, here.targets, reduction="sum"))
        count += int((window.targets != _IGNORED).sum())
    return total, count


def cross_entropy(scores: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
    """Return the cross entropy of scores (N, T, V) in fp32, in nats."""
    return functional.cross_entropy(scores.float().flatten(0, 1), targets.flatten(), reduction=reduction)
