"""The handler file of an archive whose moves in the latent space are spoilt: a proof that they pass proves nothing.

Sums forget their signs, and walks stop a step short of their end; all else is the platform's own. TorchServe runs this
file as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from workers.families import latent
from workers.serving.torchserve_entry import TorchServeEntry

_combine, _walk = latent.combine, latent.walk


def _combine_unsigned(groups: Sequence[tuple[float, Tensor]]) -> Tensor:
    return _combine([(abs(sign), group) for sign, group in groups])


def _walk_short(start: Tensor, end: Tensor, steps: int, mode: latent.Mode = "slerp") -> Tensor:
    return _walk(start, end, steps + 1, mode)[:-1]


latent.combine, latent.walk = _combine_unsigned, _walk_short


class Service(TorchServeEntry):
    """What TorchServe instantiates in a backend worker."""
