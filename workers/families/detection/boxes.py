"""Box coordinates: offsets to anchors and back, and shapes. Boxes are xyxy unless a name says otherwise.

Shape letters: N images, M truths of an image (padded), A anchors.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_convert

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Offsets are divided by these, so that the loss sees values near one."""

# exp() of a larger log ratio is an outlier of an untrained network, not a box.
_MAX_LOG_RATIO = 4.135


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the offsets that move `anchors` (..., 4) onto `boxes` (..., 4); sides must be above zero."""
    target, anchor = box_convert(boxes, "xyxy", "cxcywh"), box_convert(anchors, "xyxy", "cxcywh")
    centre = (target[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    sides = torch.log(target[..., 2:] / anchor[..., 2:])
    return torch.cat([centre, sides], dim=-1) / boxes.new_tensor(VARIANCES)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Return `anchors` moved by `offsets`; the inverse of `encode`."""
    scaled = offsets * offsets.new_tensor(VARIANCES)
    anchor = box_convert(anchors, "xyxy", "cxcywh")
    centre = scaled[..., :2] * anchor[..., 2:] + anchor[..., :2]
    half = scaled[..., 2:].clamp(max=_MAX_LOG_RATIO).exp() * anchor[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)
