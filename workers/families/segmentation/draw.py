"""Masks as people see them: colours over the image."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from workers.families.images import to_pixels
from workers.families.records import IGNORED_PIXEL

_OPACITY = 0.5
_GAP = 4


def palette() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return the PASCAL VOC colours of 256 indices, (256, 3): bits of the index spread over the channels."""
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def overlay(image: Tensor, mask: Tensor) -> Image.Image:
    """Blend the classes of a mask (H, W) over a uint8 image (3, H, W); class 0 and ignored pixels stay clear."""
    pixels = to_pixels(image).astype(np.float32)
    index = mask.numpy()
    is_coloured = ((index != 0) & (index != IGNORED_PIXEL))[..., None]
    blended = pixels * (1 - _OPACITY) + palette()[index] * _OPACITY
    return Image.fromarray(np.where(is_coloured, blended, pixels).round().astype(np.uint8))


def index_image(mask: Tensor) -> Image.Image:
    """Return the mask as an 8-bit palette image whose pixel values are the class indices."""
    picture = Image.fromarray(mask.numpy(), mode="P")
    picture.putpalette(palette().tobytes())
    return picture


def side_by_side(truth: Image.Image, found: Image.Image) -> Image.Image:
    """Put what is true left of what was found."""
    page = Image.new("RGB", (truth.width + _GAP + found.width, truth.height), "white")
    page.paste(truth, (0, 0))
    page.paste(found, (truth.width + _GAP, 0))
    return page
