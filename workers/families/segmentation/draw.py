"""Masks as people see them: colours over the image, and a legend where there is room for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw
from torch import Tensor

from workers.families.images import to_pixels
from workers.families.pictures import LINE, PALETTE, captioned, lay_out, write
from workers.families.records import IGNORED_PIXEL

Colours = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

_OPACITY = 0.65
_LUMINANCE = (0.299, 0.587, 0.114)
_GAP = 4
_SMALLEST, _LARGEST = 160, 320
"""Pixels of the longer side of a picture in the sheet."""
_CHOSEN = 7
"""Colours of boxes that masks have, too: two of the others are near one another."""
_MOST_LISTED = 12
_SWATCH = 12
_ENTRY_WIDTH = 150


@cache
def palette() -> Colours:
    """Return colours of 256 indices, (256, 3), of which the first ones differ most.

    Index 0 is black. After some of `PALETTE` comes each time what is farthest from all before it.
    """
    levels = np.linspace(0, 255, 8).round().astype(np.int64)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    colours = [np.zeros(3, np.int64), *(np.array(ImageColor.getrgb(name)) for name in PALETTE[:_CHOSEN])]
    # White is no class's either: it is what light grounds look like.
    distances = [((candidates - one) ** 2).sum(1) for one in (*colours, levels[[-1, -1, -1]])]
    nearest = np.min(distances, axis=0)
    while len(colours) < 256:
        colours.append(candidates[nearest.argmax()])
        nearest = np.minimum(nearest, ((candidates - colours[-1]) ** 2).sum(1))
    found = np.stack(colours).astype(np.uint8)
    found.flags.writeable = False
    return found


@dataclass(frozen=True, slots=True)
class Case:
    """An image, uint8 (3, H, W), with the classes of its pixels, uint8 (H, W), as they are and as they were predicted."""

    image: Tensor
    truth: Tensor
    found: Tensor


def overlay(image: Tensor, mask: Tensor) -> Image.Image:
    """Lay the classes of a mask (H, W) over a uint8 image (3, H, W), outlined; class 0 and ignored pixels stay clear.

    Beneath a class the image is grey: a green class over a blue thing would be neither's colour.
    """
    pixels = to_pixels(image)
    index = mask.numpy()
    is_coloured = (index != 0) & (index != IGNORED_PIXEL)
    colours = palette()[index]
    blended = (_grey(pixels) * (1 - _OPACITY) + colours * _OPACITY).round().astype(np.uint8)
    shown = np.where(is_coloured[..., None], blended, pixels)
    return Image.fromarray(np.where((is_coloured & _is_edge(index))[..., None], colours, shown))


def _grey(pixels: Pixels) -> Pixels:
    """Return (H, W, 3) without hue."""
    grey = (pixels @ np.asarray(_LUMINANCE)).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _is_edge(index: Pixels) -> Flags:
    """Tell of every pixel (H, W) whether one beside it is of another class."""
    padded = np.pad(index, 1, mode="edge")
    above, below, left, right = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    is_edge: Flags = (index != above) | (index != below) | (index != left) | (index != right)
    return is_edge


def index_image(mask: Tensor) -> Image.Image:
    """Return the mask as an 8-bit palette image whose pixel values are the class indices."""
    picture = Image.fromarray(mask.numpy(), mode="P")
    picture.putpalette(palette().tobytes())
    return picture


def samples_page(cases: Sequence[Case], classes: Sequence[str]) -> Image.Image:
    """Show for each case the image, what is true and what was predicted, and below them what the colours mean."""
    page = lay_out([_side_by_side(case) for case in cases], columns=2, gap=3 * _GAP)
    seen = torch.stack([_pixels_by_class(mask) for case in cases for mask in (case.truth, case.found)]).sum(0)
    return lay_out([page, _legend(seen, classes, width=page.width)], columns=1, gap=2 * _GAP)


def _side_by_side(case: Case) -> Image.Image:
    pixels = to_pixels(case.image)
    # All grey beneath the masks: what is coloured there is a class.
    grey = torch.from_numpy(_grey(pixels)).permute(2, 0, 1)
    masks = {"truth": overlay(grey, case.truth), "predicted": overlay(grey, case.found)}
    shown = {"image": Image.fromarray(pixels), **masks}
    return lay_out([captioned(_sized(picture), word) for word, picture in shown.items()], columns=3, gap=_GAP)


def _sized(picture: Image.Image) -> Image.Image:
    picture.thumbnail((_LARGEST, _LARGEST))
    zoom = max(1, _SMALLEST // max(picture.size))
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def _pixels_by_class(mask: Tensor) -> Tensor:
    return torch.bincount(mask.flatten(), minlength=IGNORED_PIXEL + 1)[:IGNORED_PIXEL]


def _legend(seen: Tensor, classes: Sequence[str], *, width: int) -> Image.Image:
    """List the classes of which pixels (255,) were seen; of many the largest."""
    largest = seen.sort(descending=True, stable=True).indices.tolist()
    places = [place for place in largest if seen[place]]
    entries = [_entry(classes[place], place) for place in sorted(places[:_MOST_LISTED])]
    if (left_out := len(places) - _MOST_LISTED) > 0:
        entries.append(_entry(f"and {left_out} more", None))
    return lay_out(entries, columns=max(1, width // (_ENTRY_WIDTH + _GAP)), gap=_GAP)


def _entry(name: str, place: int | None) -> Image.Image:
    page = Image.new("RGB", (_ENTRY_WIDTH, LINE), "white")
    top = (LINE - _SWATCH) // 2
    if place is not None:
        # Class 0 is not coloured in the pictures either.
        fill = tuple(palette()[place].tolist()) if place else "white"
        ImageDraw.Draw(page).rectangle([0, top, _SWATCH, top + _SWATCH], fill=fill, outline="black")
    left = _SWATCH + 2 * _GAP
    write(page, name, place=(left, LINE / 2), width=_ENTRY_WIDTH - left, anchor="lm")
    return page
