"""From encoded bytes to uint8 tensors and to what networks see, the same for every family.

Training, evaluation and serving all decode and normalise with these functions and no others.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from services.core.png import has_damaged_pixels

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
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


def open_image(data: bytes) -> Image.Image:
    """Read the header of a JPEG, PNG or WebP file; no pixel is decoded.

    Raises:
        ImageInvalid: another format, too large, or damaged so that only checksums tell.
    """
    if not data:
        raise ImageInvalid("the image is empty; send the bytes of a JPEG, PNG or WebP file")
    too_large = f"the image has more than {MAX_PIXELS // 1_000_000} million pixels; send a smaller one"
    try:
        header = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise ImageInvalid(too_large) from err
    except Exception as err:
        raise ImageInvalid("the bytes are not a JPEG, PNG or WebP image") from err
    if not header.width or not header.height:
        raise ImageInvalid("the image has no pixels; send a complete file")
    if header.width * header.height > MAX_PIXELS:
        raise ImageInvalid(too_large)
    if has_damaged_pixels(data):
        raise ImageInvalid("the PNG image is damaged: its pixels do not fit their checksum; send a complete file")
    return header


def decode(data: bytes, *, upright: bool = True) -> Tensor:
    """Decode JPEG, PNG or WebP into uint8 RGB (3, H, W), the first frame only.

    `upright` turns an image stored on its side (EXIF) the way people see it; without it the pixels
    stay as stored, which is what annotations count in.

    Raises:
        ImageInvalid: unreadable, of another format or too large.
    """
    return decode_opened(open_image(data), upright=upright)[0]


def decode_opened(
    image: Image.Image, *, upright: bool = True, draft: tuple[int, int] | None = None
) -> tuple[Tensor, tuple[int, int]]:
    """Return uint8 RGB (3, H, W) and the full (height, width) of an opened image.

    `draft` (width, height) lets a large JPEG be decoded at a fraction of its size that is no smaller.

    Raises:
        ImageInvalid: damaged.
    """
    kind = image.format
    width, height = image.size
    try:
        if draft is not None:
            image.draft(None, draft)
        if upright and (turn := _TURNS.get(_orientation(image))) is not None:
            image = image.transpose(turn)
            if turn in _QUARTER_TURNS:
                width, height = height, width
        pixels = np.array(_to_rgb(image))
    except Exception as err:  # whatever a decoder makes of a stranger's bytes, they are at fault
        raise ImageInvalid(f"the {kind} image is damaged or incomplete; send a complete file") from err
    # A view of Pillow's own layout: what scales or stacks it next reads that faster than planes, to the same values.
    return torch.from_numpy(pixels).permute(2, 0, 1), (height, width)


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
    if image.mode != "RGB":
        return image.convert("RGB")
    # Here, not under numpy, which may take what it can't read for an object.
    image.load()
    return image


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 images (N, 3, H, W) into what networks see."""
    return normalise_(images.float())


def normalise_(pixels: Tensor) -> Tensor:
    """Normalise float images of values 0 to 255 in place."""
    mean = pixels.new_tensor(MEAN)[:, None, None]
    std = pixels.new_tensor(STD)[:, None, None]
    return pixels.sub_(255 * mean).mul_(1 / (255 * std))


def to_tanh(pixels: Tensor) -> Tensor:
    """Turn uint8 images into the range of Tanh."""
    return pixels.float() / 127.5 - 1


def from_tanh(images: Tensor) -> Tensor:
    """Turn images of the range of Tanh into uint8."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pixels(image: Tensor) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Return a uint8 image (3, H, W) as the (H, W, 3) array that Pillow takes."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def denormalise(images: Tensor) -> Tensor:
    """Turn what networks see (N, 3, H, W) back into uint8 images, cut to their range."""
    mean = images.new_tensor(MEAN, dtype=torch.float32)[:, None, None]
    std = images.new_tensor(STD, dtype=torch.float32)[:, None, None]
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
