"""Points of the plane instead of images: how near their distribution is, and a picture of it."""

from __future__ import annotations

import io

import torch
from PIL import Image, ImageDraw
from torch import Tensor

_SIDE = 384
_REAL, _FAKE = (170, 170, 170), (215, 60, 50)


def point_figures(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return how far mean and covariance of generated points (N, D) are from those of real ones (M, D).

    The covariance's error is relative, in the Frobenius norm; `diversity` is the ratio of total deviations.
    """
    real, fake = real.double(), fake.double()
    wanted, found = torch.cov(real.t()), torch.cov(fake.t())
    return {
        "eval/mean_error": float((fake.mean(0) - real.mean(0)).norm()),
        "eval/covariance_error": float((found - wanted).norm() / wanted.norm()),
        "eval/diversity": float((found.trace() / wanted.trace()).sqrt()),
    }


def scatter(real: Tensor, fake: Tensor) -> bytes:
    """Draw real points grey and generated ones red over them, as one PNG."""
    low, high = real.amin(0), real.amax(0)
    middle, reach = (low + high) / 2, 0.6 * float((high - low).max().clamp(min=1e-6))
    page = Image.new("RGB", (_SIDE, _SIDE), "white")
    canvas = ImageDraw.Draw(page)
    for points, colour in ((real, _REAL), (fake, _FAKE)):
        places = (points - middle) / (2 * reach) + 0.5
        for x, y in places.clamp(-1, 2).tolist():
            left, top = _SIDE * x, _SIDE * (1 - y)
            canvas.ellipse([left - 2, top - 2, left + 2, top + 2], fill=colour)
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()
