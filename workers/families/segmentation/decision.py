"""From the scores of a square to a class for every pixel of the sent image, on the processor.

The result is the maximum of `to_image_size`. Most of its cost is avoided: a class that loses everywhere is
left out first, and what remains is interpolated strip by strip, each small enough for the caches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.letterbox import Fit

_STRIP = 2**20
"""Most scores, in fp32 4 MiB, that are held at once for the pixels of a sent image."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The class of every pixel, how many pixels each class won, and the sum of its probabilities there."""

    mask: Tensor
    pixels: Tensor
    probabilities: Tensor


def to_image_size(scores: Tensor, placed: Fit) -> Tensor:
    """Return the scores (C, S, S) of a square for every pixel of the image it holds, (C, H, W)."""
    inner, size = held(scores, placed), (placed.height, placed.width)
    if inner.shape[1:] == size:
        return inner
    return functional.interpolate(inner[None], size, mode="bilinear", align_corners=False)[0]


def held(scores: Tensor, placed: Fit) -> Tensor:
    """Return what of a square's scores is the image's."""
    height, width = placed.inner
    return scores[:, placed.top : placed.top + height, placed.left : placed.left + width]


def decide(inner: Tensor, placed: Fit, *, with_probabilities: bool) -> Decided:
    """Decide as the maximum of `to_image_size` does, strip by strip across the image's longer side.

    `inner` are scores (C, h, w) of the image's part of the square. A probability is a share among all classes:
    with them, none is left out.

    Raises:
        ArithmeticError: a score is not finite, so that no class can be told.
    """
    if not inner.sum().isfinite():
        raise ArithmeticError("the network's scores are not finite")
    is_wide = placed.width > placed.height
    inner = inner.mT.contiguous() if is_wide else inner
    length, breadth = max(placed.height, placed.width), min(placed.height, placed.width)
    classes = len(inner)
    ids = list(range(classes)) if with_probabilities else possible_winners(inner)
    inner = inner if len(ids) == classes else inner[ids]
    mask = torch.empty(length, breadth, dtype=torch.uint8)
    pixels, probabilities = torch.zeros(classes, dtype=torch.int64), torch.zeros(classes, dtype=torch.float64)
    step = max(1, _STRIP // (len(ids) * max(breadth, inner.shape[2])))
    for start in range(0, length, step):
        strip = _strip(inner, (length, breadth), start, min(start + step, length))
        won = mask[start : start + step]
        best = _take_winners(strip, ids, won)
        if with_probabilities:
            sure = (best - strip.logsumexp(0)).exp().flatten().double()
            probabilities += won.flatten().bincount(sure, minlength=classes)
    pixels += mask.flatten().bincount(minlength=classes)
    return Decided(mask.mT.contiguous() if is_wide else mask, pixels, probabilities)


def possible_winners(inner: Tensor) -> list[int]:
    """Return the classes that have the largest of the scores (C, h, w) somewhere, once they are interpolated.

    Between four neighbours an interpolated score is neither above their largest nor below their smallest. So a class
    loses between them where its largest is below some other's smallest.
    """
    above, below = inner, inner
    for dim in (1, 2):
        if (count := inner.shape[dim]) > 1:
            above = torch.maximum(above.narrow(dim, 0, count - 1), above.narrow(dim, 1, count - 1))
            below = torch.minimum(below.narrow(dim, 0, count - 1), below.narrow(dim, 1, count - 1))
    can_win = (above >= below.amax(0)).flatten(1).any(1)
    return can_win.nonzero().flatten().tolist()


def _take_winners(strip: Tensor, ids: list[int], won: Tensor) -> Tensor:
    """Write into `won` (h, w) the id of the first largest of the scores (C, h, w), and return those largest.

    Class by class: torch's argmax over the first dimension takes five times as long.
    """
    best = strip[0].clone()
    won.fill_(ids[0])
    for row, class_id in zip(strip[1:], ids[1:], strict=True):
        won.masked_fill_(row > best, class_id)
        torch.maximum(best, row, out=best)
    return best


def _strip(inner: Tensor, size: tuple[int, int], start: int, end: int) -> Tensor:
    """Return the rows from `start` to `end` of scores (C, h, w) interpolated to `size` as `to_image_size` does."""
    height, (length, breadth) = inner.shape[1], size
    if height != length:
        # Where torch puts an output row's middle, without aligned corners: in fp32, as it does.
        places = ((torch.arange(start, end) + 0.5) * (height / length) - 0.5).clamp(min=0)
        above = places.long().clamp(max=height - 1)
        below = (above + 1).clamp(max=height - 1)
        part = (places - above)[:, None]
        rows = torch.lerp(inner[:, above], inner[:, below], part)
    else:
        rows = inner[:, start:end]
    if rows.shape[2] == breadth:
        return rows
    return functional.interpolate(rows[None], (end - start, breadth), mode="bilinear", align_corners=False)[0]
