"""From encoded bytes to the square tensor a network sees, and back to the pixels of the sent image.

Training, evaluation and serving all decode, fit and normalise with these functions and no others.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchvision.io  # registers torch.ops.image
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FILL = (124, 116, 104)
"""Colour around a fitted image: the mean, so that after normalisation it is nearly zero."""
MAX_PIXELS = 50_000_000

_FORMATS = ("JPEG", "PNG", "WEBP")
_READ_RGB = torchvision.io.ImageReadMode.RGB.value


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


def letterbox(image: Tensor, size: int) -> tuple[Tensor, Fit]:
    """Fit a uint8 image (3, H, W) into a square of `size`, filling the rest."""
    placed = fit(image.shape[-2], image.shape[-1], size)
    inner_height, inner_width = placed.inner
    if (inner_height, inner_width) != tuple(image.shape[-2:]):
        image = functional.interpolate(image[None], (inner_height, inner_width), mode="bilinear", antialias=True)[0]
    if (inner_height, inner_width) == (size, size):
        return image, placed
    square = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].expand(3, size, size).clone()
    square[:, placed.top : placed.top + inner_height, placed.left : placed.left + inner_width] = image
    return square, placed


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
    header = _open(data)
    plain = header.mode in ("RGB", "L") and header.format in ("JPEG", "PNG")
    try:
        return _decode_plain(data, header, upright) if plain else _decode_any(header, upright)
    except Exception as err:  # whatever a decoder makes of a stranger's bytes, the bytes are at fault
        raise ImageInvalid(f"the {header.format} image is damaged or incomplete; send a complete file") from err


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


def _decode_plain(data: bytes, header: Image.Image, upright: bool) -> Tensor:
    # The functions of torchvision.io warn at every call since 0.29; the operators under them do not.
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    operator = torch.ops.image.decode_jpeg if header.format == "JPEG" else torch.ops.image.decode_png
    image: Tensor = operator(buffer, _READ_RGB, upright)
    return (image.to(torch.int32) >> 8).to(torch.uint8) if image.dtype == torch.uint16 else image


def _decode_any(header: Image.Image, upright: bool) -> Tensor:
    header.seek(0)
    image = ImageOps.exif_transpose(header) if upright else header
    if image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_pixels(image: Tensor) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Return a uint8 image (3, H, W) as the (H, W, 3) array that Pillow takes."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def stack(squares: Sequence[Tensor]) -> Tensor:
    """Return fitted images as one normalised batch, the network's input."""
    return normalise(torch.stack(list(squares)))
