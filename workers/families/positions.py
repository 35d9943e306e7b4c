"""Where a transformer's patches lie, as numbers added to them. Patches are counted row by row."""

from __future__ import annotations

import torch
from torch import Tensor


def wave_positions(dim: int, rows: int, columns: int) -> Tensor:
    """Return fixed positions (1, rows * columns, dim): sines and cosines of the column, then of the row.

    Frequency k of each is 10000 ** (-k / (dim / 4)) (Vaswani et al. 2017, section 3.5, once for each direction).
    """
    rates = 10_000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    angles = [place.flatten()[:, None] * rates for place in (column, row)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1).float()[None]
