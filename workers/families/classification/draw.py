"""Pictures of classified images: captions, confusion, and where a class was seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from services.core.fonts import font
from workers.families.images import to_pixels
from workers.families.pictures import LINE, cut, text_width, write

_SIDE = 160
_CAPTION, _CAPTION_SIZE = 20, 13
_MATRIX_SIDE = 640
_LARGEST_CELL = 64
_MOST_NAMED = 40
_NAME_WIDTH = 110
_PAD = 4
_COUNT_SIZES = (13, 11, 9)
_BORDER = "#404040"
_DARK = 0.5
"""A share from which on its blue is too dark for black text."""
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
    line = cut(text, _SIDE - 2 * _PAD, size=_CAPTION_SIZE)
    canvas.text((_PAD, _SIDE + _CAPTION / 2), line, fill="white", font=font(_CAPTION_SIZE), anchor="lm")
    return page


def confusion_picture(counts: Tensor, classes: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix (K, K), each row by its share; white is none, blue is all.

    Many classes go without their names, and counts that do not all fit into their cells are left out.
    """
    cell = max(1, min(_LARGEST_CELL, _MATRIX_SIDE // len(classes)))
    matrix = _matrix(counts, cell)
    names = _names(classes, cell) if len(classes) <= _MOST_NAMED else Image.new("RGB", (0, matrix.height), "white")
    left, below = LINE + names.width + _PAD, matrix.height + _PAD
    page = Image.new("RGB", (left + matrix.width + _PAD, below + names.width + LINE), "white")
    page.paste(names, (LINE, 0))
    page.paste(matrix, (left, 0))
    page.paste(names.rotate(90, expand=True), (left, below))
    page.paste(_axis("true", matrix.height).rotate(90, expand=True), (0, 0))
    page.paste(_axis("predicted", matrix.width), (left, below + names.width))
    return page


def _matrix(counts: Tensor, cell: int) -> Image.Image:
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    values = (255 * (1 - share)).round().to(torch.uint8).numpy()
    picture = Image.fromarray(np.stack([values, values, np.full_like(values, 255)], axis=-1))
    picture = picture.resize((picture.width * cell, picture.height * cell), Image.Resampling.NEAREST)
    _write_counts(picture, counts, share, cell=cell)
    framed = Image.new("RGB", (picture.width + 2, picture.height + 2), _BORDER)
    framed.paste(picture, (1, 1))
    return framed


def _write_counts(picture: Image.Image, counts: Tensor, share: Tensor, *, cell: int) -> None:
    widest = str(int(counts.max()))
    size = next((size for size in _COUNT_SIZES if text_width(widest, size=size) <= cell - 4), None)
    if size is None or size > cell:
        return
    canvas = ImageDraw.Draw(picture)
    for row, column in counts.nonzero().tolist():
        ink = "white" if share[row, column] > _DARK else "black"
        place = ((column + 0.5) * cell, (row + 0.5) * cell)
        canvas.text(place, str(int(counts[row, column])), fill=ink, font=font(size), anchor="mm")


def _names(classes: Sequence[str], cell: int) -> Image.Image:
    """Write a name beside each row; turned to the left they stand under the columns."""
    shown = [cut(name, _NAME_WIDTH) for name in classes]
    width = math.ceil(max(text_width(name) for name in shown)) + 2
    page = Image.new("RGB", (width, cell * len(classes) + 2), "white")
    for row, name in enumerate(shown):
        write(page, name, place=(width, 1 + (row + 0.5) * cell), width=width, anchor="rm")
    return page


def _axis(word: str, length: int) -> Image.Image:
    page = Image.new("RGB", (length, LINE), "white")
    write(page, word, place=(length / 2, LINE / 2), width=length)
    return page


def heat(image: Tensor, activation: Tensor) -> Image.Image:
    """Blend where a class was seen, (h, w), over a uint8 image (3, H, W): red where most, blue where nothing."""
    positive = activation.clamp(min=0)
    level = positive / positive.max().clamp(min=1e-12)
    size = (image.shape[-2], image.shape[-1])
    level = functional.interpolate(level[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    colours = torch.stack([level, 1 - (2 * level - 1).abs(), 1 - level]) * 255
    return Image.fromarray(to_pixels((0.5 * image + 0.5 * colours).round().to(torch.uint8)))
