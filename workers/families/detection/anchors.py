"""Default boxes: at every place of a feature map, a few sizes and shapes.

A level with sizes s1..sn and ratios r1..rm has, at each place, (s1, r1..rm) and (s2..sn, r1): n+m-1
boxes instead of n*m. The default boxes of SSD are of this form too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

SizeSemantics = Literal["side", "area"]


def box_shapes(
    sizes: Sequence[float], ratios: Sequence[float], *, size_semantics: SizeSemantics = "side"
) -> list[tuple[float, float]]:
    """Return (width, height) of each box of one place, as fractions of the image.

    A ratio is width over height. With `side`, a size is the side of the square of the same area;
    with `area`, it is that area itself.
    """
    combinations = [(sizes[0], ratio) for ratio in ratios] + [(size, ratios[0]) for size in sizes[1:]]
    sides = [(math.sqrt(size) if size_semantics == "area" else size, ratio) for size, ratio in combinations]
    return [(side * math.sqrt(ratio), side / math.sqrt(ratio)) for side, ratio in sides]


def level_anchors(height: int, width: int, shapes: Sequence[tuple[float, float]]) -> Tensor:
    """Return the boxes of one feature map as fractions (height * width * len(shapes), 4).

    Places go row by row, all shapes of one place together: the order of `SSDHead`'s outputs.
    """
    rows = (torch.arange(height, dtype=torch.float32) + 0.5) / height
    columns = (torch.arange(width, dtype=torch.float32) + 0.5) / width
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    centres = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
    halves = torch.tensor(shapes, dtype=torch.float32)[None] / 2
    return torch.cat([centres - halves, centres + halves], dim=-1).reshape(-1, 4)


def default_boxes(
    grids: Sequence[tuple[int, int]],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[Sequence[float]],
    *,
    size_semantics: SizeSemantics = "side",
) -> Tensor:
    """Return the boxes of all levels, one after another, as fractions of the image."""
    levels = zip(grids, sizes, ratios, strict=True)
    return torch.cat([level_anchors(h, w, box_shapes(s, r, size_semantics=size_semantics)) for (h, w), s, r in levels])
