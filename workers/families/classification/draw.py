"""Pictures of classified images: captions, confusion, and where a class was seen."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from workers.families.images import to_pixels

_SIDE = 160
_CAPTION = 20
_RIGHT, _WRONG = "#3cb44b", "#e6194b"


def captioned(image: Tensor, text: str, *, is_right: bool) -> Image.Image:
    """Show a uint8 image (3, H, W) over a caption, green where it is right."""
    picture = Image.fromarray(to_pixels(image))
    picture.thumbnail((_SIDE, _SIDE))
    zoom = max(1, _SIDE // max(picture.size))
    picture = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
    page = Image.new("RGB", (_SIDE, _SIDE + _CAPTION), "white")
    page.paste(picture, ((_SIDE - picture.width) // 2, (_SIDE - picture.height) // 2))
    canvas = ImageDraw.Draw(page)
    canvas.rectangle([0, _SIDE, _SIDE, _SIDE + _CAPTION], fill=_RIGHT if is_right else _WRONG)
    canvas.text((4, _SIDE + 3), text[:24], fill="white", font=ImageFont.load_default(size=13))
    return page


def confusion_picture(counts: Tensor) -> Image.Image:
    """Draw a confusion matrix (K, K), each row by its share; white is none, blue is all."""
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    values = (255 * (1 - share)).round().to(torch.uint8).numpy()
    picture = Image.fromarray(np.stack([values, values, np.full_like(values, 255)], axis=-1))
    cell = max(1, 320 // len(counts))
    return picture.resize((picture.width * cell, picture.height * cell), Image.Resampling.NEAREST)


def heat(image: Tensor, activation: Tensor) -> Image.Image:
    """Blend where a class was seen, (h, w), over a uint8 image (3, H, W): red where most, blue where nothing."""
    positive = activation.clamp(min=0)
    level = positive / positive.max().clamp(min=1e-12)
    size = (image.shape[-2], image.shape[-1])
    level = functional.interpolate(level[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    colours = torch.stack([level, 1 - (2 * level - 1).abs(), 1 - level]) * 255
    return Image.fromarray(to_pixels((0.5 * image + 0.5 * colours).round().to(torch.uint8)))
