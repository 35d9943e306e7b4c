"""Pictures in answers: as PNG in base64, and how far those of two answers are apart."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from workers.families.base import ParityReport
from workers.families.images import to_pixels
from workers.families.pictures import png

MAX_PIXELS = 2**21
"""Of all pictures of one answer: what fits a response of the server even as noise."""

# The parity gate: how far, in levels of 255, a faster form may move a pixel, and all pixels in the mean.
_MAX_LEVELS = 8.0
_MEAN_LEVELS = 0.5


def to_picture(image: Tensor) -> Image.Image:
    """Turn a uint8 image (C, H, W) of one channel or three into a picture."""
    pixels = to_pixels(image)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def encoded(picture: Image.Image) -> dict[str, str]:
    """Return a picture as answers hold it."""
    return {"b64": base64.b64encode(png(picture)).decode()}


def decoded(picture: Mapping[str, str]) -> npt.NDArray[np.uint8]:
    """Return the pixels (H, W) or (H, W, C) of a picture of an answer."""
    with Image.open(io.BytesIO(base64.b64decode(picture["b64"]))) as opened:
        return np.array(opened)


def compare_pictures(expected: Sequence[Mapping[str, str]], actual: Sequence[Mapping[str, str]]) -> ParityReport:
    """Report the largest and the mean difference of a pixel, in levels of 255."""
    ours, theirs = ([decoded(one) for one in pictures] for pictures in (expected, actual))
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return ParityReport({"pixel": math.inf, "pixels": math.inf}, passed=False)
    changes = [np.abs(one.astype(np.int16) - other) for one, other in zip(ours, theirs, strict=True)]
    largest, mean = float(max(map(np.max, changes))), float(max(map(np.mean, changes)))
    return ParityReport({"pixel": largest, "pixels": mean}, largest <= _MAX_LEVELS and mean <= _MEAN_LEVELS)


def pictures_of(answer: Mapping[str, Any], names: Sequence[str]) -> list[Mapping[str, str]]:
    """Return the pictures under some names of an answer, each alone or in a list."""
    found = [answer[name] for name in names if name in answer]
    return [one for many in found for one in (many if isinstance(many, list | tuple) else [many])]
