"""Boxes moved with their images, as `warp.Draw` says."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.families.warp import Draw


def move_boxes(boxes: Tensor, labels: Tensor, drawn: Draw, *, size: int, min_visible: float) -> tuple[Tensor, Tensor]:
    """Move boxes (N, M, 4) with their images; those mostly outside get label 0 and a zero box."""
    zoom, shift = drawn.zoom[:, None, None], drawn.shift[:, None, None]
    corners = (boxes.reshape(*boxes.shape[:-1], 2, 2) * (2 / size) - 1) * zoom + shift
    corners = (corners + 1) * (size / 2)
    low, high = corners.amin(2), corners.amax(2)
    moved = torch.cat([low, high], dim=-1)
    inside = moved.clamp(0, size)
    full, kept = (high - low).prod(-1), (inside[..., 2:] - inside[..., :2]).prod(-1)
    visible = (labels > 0) & (kept >= min_visible * full) & ((inside[..., 2:] - inside[..., :2]).amin(-1) >= 1)
    return inside * visible[..., None], labels * visible
