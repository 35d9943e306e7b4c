"""What serving does around a context encoder: a picture and what is missing of it in, the picture filled out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from workers.families.answers import encoded
from workers.families.base import InstanceInvalid, Network, ServingSpec
from workers.families.images import ImageInvalid, decode, to_pixels, to_tanh
from workers.families.instances import encoded_bytes
from workers.families.translation.data import to_square
from workers.families.translation.handler import Sent, TranslationHandler, in_size
from workers.families.translation.holes import centre, hide

_HALF = 128
"""Level of a sent mask from which on a pixel is missing."""


class InpaintHandler(TranslationHandler):
    """Answers with the picture that was sent, filled where something is missing; all else keeps its pixels.

    Parameters, beside `size`: what is missing, of models that learned to fill any region: `mask`, a picture of the same
    size, white where something is missing; or `box`, its corners [x1, y1, x2, y2] in pixels, right and bottom exclusive.
    Without either, and of models that learned the centre alone, it is the square in the middle.
    The answer's `missing` says which share that is.
    """

    params = ("size", "mask", "box")

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.fills_any = spec.constants["hole"] == "random"
        self.overlap = int(spec.constants["overlap"])

    def translate(self, sent: Sent, wish: Mapping[str, Any], network: Network) -> Mapping[str, Any]:
        missing = self._missing(sent, wish)
        hidden = centre(self.side, self.overlap) if missing is None else _shrunk(missing, self.side)
        rows = hide(to_square(sent.image, self.side)[None], hidden[None])
        drawn = self.drawn(to_tanh(rows), network)
        size = self.size_of(drawn, sent, wish)
        shown = _mask_in_size(hidden if missing is None else missing, size)
        answer = torch.where(shown, in_size(drawn, size)[0], _in_size(sent.image, size))
        facts = self.facts(size, sent) | {"missing": round(float(shown.float().mean()), 6)}
        return {"image": encoded(Image.fromarray(to_pixels(answer))), **facts}

    def _missing(self, sent: Sent, wish: Mapping[str, Any]) -> Tensor | None:
        """Return what is asked to be filled, bool (height, width) of the picture that was sent; None: the middle."""
        given = [name for name in ("mask", "box") if wish.get(name) is not None]
        if not given:
            return None
        if not self.fills_any:
            text = "this model fills the square in the middle only; leave it out, or train one with hole.kind 'random'"
            raise InstanceInvalid(f"{given[0]} has no effect: {text}")
        if len(given) > 1:
            raise InstanceInvalid("mask and box say both what is missing; send one of them")
        missing = _mask(wish["mask"], sent) if given == ["mask"] else _box(wish["box"], sent)
        if not missing.any():
            raise InstanceInvalid(f"{given[0]} leaves nothing to fill; a mask is white where something is missing")
        if missing.all():
            raise InstanceInvalid(f"{given[0]} leaves nothing of the picture to go by; make it smaller")
        return missing


def _mask(value: Any, sent: Sent) -> Tensor:
    try:
        image = decode(encoded_bytes(value, "mask"))
    except ImageInvalid as err:
        raise InstanceInvalid(f"mask: {err}") from err
    height, width = image.shape[1:]
    if (height, width) != (sent.height, sent.width):
        raise InstanceInvalid(f"mask is {width}x{height}, but the image is {sent.width}x{sent.height}; send both alike")
    return image.float().mean(0) >= _HALF


def _box(value: Any, sent: Sent) -> Tensor:
    is_whole = isinstance(value, list | tuple) and all(type(edge) is int for edge in value)
    if not is_whole or len(value) != 4:
        raise InstanceInvalid(f"box must be four whole numbers [x1, y1, x2, y2], not {value!r:.50}")
    x1, y1, x2, y2 = value
    if not (0 <= x1 < x2 <= sent.width and 0 <= y1 < y2 <= sent.height):
        raise InstanceInvalid(
            f"box {list(value)} must lie in the picture of {sent.width}x{sent.height} and have x1 < x2 and y1 < y2"
        )
    missing = torch.zeros(sent.height, sent.width, dtype=torch.bool)
    missing[y1:y2, x1:x2] = True
    return missing


def _shrunk(missing: Tensor, side: int) -> Tensor:
    """Return a mask as a square in which whatever holds a missing pixel is missing."""
    return functional.adaptive_max_pool2d(missing[None, None].float(), side)[0, 0] > 0


def _mask_in_size(missing: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(missing[None, None].float(), size, mode="nearest-exact")[0, 0] > 0


def _in_size(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[1:] == size:
        return image
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
