"""Where the face is: turned and scaled by its landmarks, or the middle of the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Landmarks = Sequence[tuple[float, float]]
"""Left eye, right eye, nose, left and right corner of the mouth as seen, (x, y) in pixels."""

TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where landmarks lie in an aligned face of 112 x 112 pixels, by ArcFace's convention (Deng et al. 2019)."""
TEMPLATE_SIZE = 112

_SMALLEST = 1e-6


class LandmarksUnusable(ValueError):
    """These points fix no face; the message says why."""


def similarity(source: Tensor, target: Tensor) -> tuple[complex, complex]:
    """Return (a, b) of the best map z -> a z + b of points (N, 2) as complex numbers: a turn, a scale and a shift.

    Least squares without mirror images (Umeyama 1991), which over complex numbers is a plain regression.

    Raises:
        LandmarksUnusable: all points of `source` are one.
    """
    here, there = (torch.view_as_complex(points.double().contiguous()) for points in (source, target))
    mean_here, mean_there = here.mean(), there.mean()
    centred = here - mean_here
    spread = float(centred.abs().square().sum())
    factor = complex((centred.conj() * (there - mean_there)).sum()) / spread if spread > _SMALLEST else 0j
    if abs(factor) < _SMALLEST:
        raise LandmarksUnusable("the landmarks do not lie like those of a face")
    return factor, complex(mean_there) - factor * complex(mean_here)


def align(image: Tensor, landmarks: Landmarks, size: int) -> Tensor:
    """Return a face (3, size, size) of a uint8 image (3, H, W) with its landmarks where the template has them.

    What lies outside of the image is black.

    Raises:
        LandmarksUnusable: they fix no face, or none in the image.
    """
    # Landmarks count from the middle of the first pixel, sizes and grids from its corner.
    template = (torch.tensor(TEMPLATE) + 0.5) * (size / TEMPLATE_SIZE) - 0.5
    factor, shift = similarity(torch.tensor(landmarks), template)
    line = torch.arange(size, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    origin = (torch.complex(x, y) - shift) / factor
    cut, (left, top) = _around(image, origin, margin=math.ceil(2 / abs(factor)) + 1)
    if not cut.numel() or not _is_inside(image, landmarks):
        raise LandmarksUnusable("the landmarks lie outside of the picture; count pixels of the upright one, as sent")
    height, width = cut.shape[-2:]
    if abs(factor) < 1:
        # Sampled as it is, an image much larger than its face would alias.
        small = (max(1, round(height * abs(factor))), max(1, round(width * abs(factor))))
        cut = functional.interpolate(cut[None], small, mode="bilinear", antialias=True)[0]
    grid = torch.stack([(2 * (origin.real - left) + 1) / width - 1, (2 * (origin.imag - top) + 1) / height - 1], dim=-1)
    face = functional.grid_sample(cut[None].float(), grid.float()[None], mode="bilinear", align_corners=False)
    return face[0].round().clamp(0, 255).to(torch.uint8)


def _is_inside(image: Tensor, landmarks: Landmarks) -> bool:
    """Return whether their middle lies in the picture: a face at its edge may leave some of them outside."""
    height, width = image.shape[-2:]
    x, y = torch.tensor(landmarks, dtype=torch.float64).mean(0).tolist()
    return bool(0 <= x <= width and 0 <= y <= height)


def _around(image: Tensor, places: Tensor, *, margin: int) -> tuple[Tensor, tuple[int, int]]:
    """Return the part of an image with all places (x + iy), and where it begins, (left, top)."""
    height, width = image.shape[-2:]
    left, right = _range(places.real, margin, width)
    top, bottom = _range(places.imag, margin, height)
    return image[:, top:bottom, left:right], (left, top)


def _range(values: Tensor, margin: int, limit: int) -> tuple[int, int]:
    low, high = math.floor(values.min()) - margin, math.ceil(values.max()) + margin + 1
    return min(max(low, 0), limit), min(max(high, 0), limit)


def central(image: Tensor, size: int, *, crop: float) -> Tensor:
    """Return the middle square of a uint8 image (3, H, W), `crop` of the largest, scaled: (3, size, size)."""
    height, width = image.shape[-2:]
    side = max(1, round(crop * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, top : top + side, left : left + side]
    if side == size:
        return square
    return functional.interpolate(square[None], (size, size), mode="bilinear", antialias=True)[0]


def to_face(image: Tensor, size: int, *, crop: float, landmarks: Landmarks | None) -> Tensor:
    """Return what the network sees of an image before normalisation: uint8 (3, size, size).

    Raises:
        LandmarksUnusable: they fix no face.
    """
    return central(image, size, crop=crop) if landmarks is None else align(image, landmarks, size)
