"""From encoded bytes to the square tensor a network sees, and back to the pixels of the sent image.

Training, evaluation and serving all decode, fit and normalise with these functions and no others.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FILL = (124, 116, 104)
"""Colour around a fitted image: the mean, so that after normalisation it is nearly zero."""
MAX_PIXELS = 50_000_000

# Pillow, not torchvision: torchvision 0.29.2 ends the process on a PNG with too few rows.
_FORMATS = ("JPEG", "PNG", "WEBP")
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}


class ImageInvalid(ValueError):
    """These bytes are not an image we can read; the message says why and what to send."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How an image of `height` x `width` lies in the square: scaled, then shifted."""

    height: int
    width: int
    scale_x: float
    scale_y: float
    left: int
    top: int

    @property
    def inner(self) -> tuple[int, int]:
        """Return height and width of the image inside the square."""
        return round(self.height * self.scale_y), round(self.width * self.scale_x)

    def to_square(self, boxes: Tensor) -> Tensor:
        """Move xyxy boxes from the image into the square."""
        return boxes * self._scales(boxes) + self._shifts(boxes)

    def to_image(self, boxes: Tensor) -> Tensor:
        """Move xyxy boxes from the square into the image and cut them at its border."""
        moved = (boxes - self._shifts(boxes)) / self._scales(boxes)
        return moved.clamp(min=0).minimum(moved.new_tensor([self.width, self.height, self.width, self.height]))

    def _scales(self, boxes: Tensor) -> Tensor:
        return boxes.new_tensor([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    def _shifts(self, boxes: Tensor) -> Tensor:
        return boxes.new_tensor([self.left, self.top, self.left, self.top])


def fit(height: int, width: int, size: int) -> Fit:
    """Return the largest centred placement of an image that keeps its shape."""
    scale = size / max(height, width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    return Fit(
        height=height,
        width=width,
        scale_x=inner_width / width,
        scale_y=inner_height / height,
        left=(size - inner_width) // 2,
        top=(size - inner_height) // 2,
    )


def letterbox(image: Tensor, size: int, *, placed: Fit | None = None) -> tuple[Tensor, Fit]:
    """Fit a uint8 image (3, H, W) into a square of `size`, filling the rest.

    `placed` says where it goes when the image was decoded smaller than it is.
    """
    placed = placed or fit(image.shape[-2], image.shape[-1], size)
    inner_height, inner_width = placed.inner
    if (inner_height, inner_width) != tuple(image.shape[-2:]):
        image = functional.interpolate(image[None], (inner_height, inner_width), mode="bilinear", antialias=True)[0]
    if (inner_height, inner_width) == (size, size):
        return image, placed
    square = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].expand(3, size, size).clone()
    square[:, placed.top : placed.top + inner_height, placed.left : placed.left + inner_width] = image
    return square, placed


def read_square(data: bytes, size: int, *, upright: bool = True) -> tuple[Tensor, Fit]:
    """Decode an image and fit it into a square; large JPEGs are decoded no finer than needed.

    Raises:
        ImageInvalid: see `decode`.
    """
    image, (height, width) = _decode(_open(data), upright=upright, draft=size)
    return letterbox(image, size, placed=fit(height, width, size))


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 images (N, 3, H, W) into what networks see."""
    return normalise_(images.float())


def normalise_(pixels: Tensor) -> Tensor:
    """Normalise float images of values 0 to 255 in place."""
    mean = pixels.new_tensor(MEAN)[:, None, None]
    std = pixels.new_tensor(STD)[:, None, None]
    return pixels.sub_(255 * mean).mul_(1 / (255 * std))


def decode(data: bytes, *, upright: bool = True) -> Tensor:
    """Decode JPEG, PNG or WebP into uint8 RGB (3, H, W), the first frame only.

    `upright` turns an image stored on its side (EXIF) the way people see it; without it the pixels
    stay as stored, which is what annotations count in.

    Raises:
        ImageInvalid: unreadable, of another format or too large.
    """
    return _decode(_open(data), upright=upright)[0]


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageInvalid("the image is empty; send the bytes of a JPEG, PNG or WebP file")
    too_large = f"the image has more than {MAX_PIXELS // 1_000_000} million pixels; send a smaller one"
    try:
        header = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise ImageInvalid(too_large) from err
    except Exception as err:
        raise ImageInvalid("the bytes are not a JPEG, PNG or WebP image") from err
    if header.width * header.height > MAX_PIXELS:
        raise ImageInvalid(too_large)
    return header


def _decode(image: Image.Image, *, upright: bool, draft: int | None = None) -> tuple[Tensor, tuple[int, int]]:
    """Return pixels and the full (height, width); `draft` allows fewer pixels if they fill that square."""
    kind = image.format
    width, height = image.size
    try:
        if draft is not None:
            inner_height, inner_width = fit(height, width, draft).inner
            image.draft(None, (inner_width, inner_height))
        if upright and (turn := _TURNS.get(_orientation(image))) is not None:
            image = image.transpose(turn)
            if turn in _QUARTER_TURNS:
                width, height = height, width
        pixels = np.array(_to_rgb(image))
    except Exception as err:  # whatever a decoder makes of a stranger's bytes, they are at fault
        raise ImageInvalid(f"the {kind} image is damaged or incomplete; send a complete file") from err
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), (height, width)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - cameras write broken EXIF; a picture shown on its side is better than none
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def to_pixels(image: Tensor) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Return a uint8 image (3, H, W) as the (H, W, 3) array that Pillow takes."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
