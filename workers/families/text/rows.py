"""How token ids travel in a row of numbers, which is all that a served network takes.

An id is two digits to the base of 256: a form that computes in bf16 rounds its input, and rounds none of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_BASE = 256
DIGITS = 2
"""Numbers that hold an id."""


def to_digits(ids: Sequence[int]) -> Tensor:
    """Return ids as float32 digits, the higher one of each first."""
    values = torch.tensor(ids, dtype=torch.int64)
    return torch.stack([values // _BASE, values % _BASE], dim=-1).flatten().float()


def from_digits(digits: Tensor) -> Tensor:
    """Return ids, int64 (N, L), of digits (N, 2 L) in any precision."""
    pairs = digits.long().reshape(len(digits), -1, DIGITS)
    return pairs[..., 0] * _BASE + pairs[..., 1]
