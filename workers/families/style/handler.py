"""What serving does around a transform network: a picture in, the same picture in another look out, at its own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from workers.families.answers import compare_pictures, encoded
from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.images import ImageInvalid, decode, denormalise, normalise, open_image, to_pixels
from workers.families.instances import count, fraction, image_bytes, refuse_unknown

_LEAST_SIDE = 16
"""Pixels of a side that the network sees at least; what is smaller is continued and cut again."""
_PARAMS = ("size", "strength", "keep_colours")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a request wants to have back."""

    size: int | None
    strength: float
    keeps_colours: bool


@dataclass(frozen=True, slots=True)
class _Prepared:
    image: Tensor
    """At the size of the answer."""
    sent: tuple[int, int]
    wish: _Wish


class StyleHandler(Handler):
    """Answers `{"image": {"b64"}, "size": [H, W], "sent_size": [H, W]}`, a PNG of the sent picture's own size.

    A picture whose longer side is over the model's limit (`serving.max_side`) is answered at that limit.

    Parameters: `size`, the longer side of the answer, up to the limit; `strength`, 0 the sent picture to 1 (default)
    the painted one; `keep_colours` takes lightness alone from the painted picture.
    """

    is_any_size: ClassVar[bool] = True

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.max_side, self.stride = int(spec.constants["max_side"]), int(spec.constants["stride"])

    def weigh(self, instance: Instance) -> int:
        try:
            wish, header = self._read_wish(instance), open_image(image_bytes(instance))
        except (InstanceInvalid, ImageInvalid):
            return 0
        height, width = self._size_of(header.height, header.width, wish)
        return height * width

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        # One at a time: their sizes differ, and the same picture must give the same bytes whatever is sent beside it.
        return [self._answer(instance, network) for instance in instances]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report the largest and the mean difference of a pixel."""
        return compare_pictures([expected["image"]], [actual["image"]])

    def _answer(self, instance: Instance, network: Network) -> Mapping[str, Any] | InstanceInvalid:
        try:
            prepared = self._prepare(instance)
        except (InstanceInvalid, ImageInvalid) as err:
            return err if isinstance(err, InstanceInvalid) else InstanceInvalid(str(err))
        painted = _finished(self._paint(prepared.image, network), prepared)
        return {
            "image": encoded(Image.fromarray(painted)),
            "size": list(painted.shape[:2]),
            "sent_size": list(prepared.sent),
        }

    def _prepare(self, instance: Instance) -> _Prepared:
        wish, image = self._read_wish(instance), decode(image_bytes(instance))
        height, width = image.shape[-2:]
        size = self._size_of(height, width, wish)
        if size != (height, width):
            image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        return _Prepared(image, (height, width), wish)

    def _paint(self, image: Tensor, network: Network) -> Tensor:
        """Return the painted picture, uint8 (3, H, W); sides that do not divide are continued and cut again."""
        height, width = image.shape[-2:]
        tall, wide = (max(_LEAST_SIDE, -(-side // self.stride) * self.stride) for side in (height, width))
        with torch.inference_mode():
            seen = functional.pad(normalise(image[None]), (0, wide - width, 0, tall - height), mode="replicate")
            painted = network(seen)
            assert isinstance(painted, Tensor)
            return denormalise(painted)[0, :, :height, :width].cpu()

    def _size_of(self, height: int, width: int, wish: _Wish) -> tuple[int, int]:
        longer = max(height, width)
        wanted = min(longer, self.max_side) if wish.size is None else wish.size
        if wanted == longer:
            return height, width
        return max(1, round(height * wanted / longer)), max(1, round(width * wanted / longer))

    def _read_wish(self, instance: Instance) -> _Wish:
        params = {**instance.params, **{name: value for name, value in instance.fields.items() if name != "image"}}
        refuse_unknown(params, _PARAMS)
        keeps_colours = params.get("keep_colours", False)
        if not isinstance(keeps_colours, bool):
            raise InstanceInvalid(f"keep_colours must be true or false, not {keeps_colours!r:.50}")
        size = count(params, "size", self.max_side, limit=self.max_side) if "size" in params else None
        return _Wish(size, fraction(params, "strength", 1.0), keeps_colours)


def _finished(painted: Tensor, prepared: _Prepared) -> npt.NDArray[np.uint8]:
    """Return the pixels (H, W, 3) of an answer as its request wants them."""
    wish, sent, found = prepared.wish, to_pixels(prepared.image), to_pixels(painted)
    if wish.keeps_colours:
        found = _with_colours_of(sent, found)
    if wish.strength < 1:
        mixed = sent.astype(np.float32) * (1 - wish.strength) + found.astype(np.float32) * wish.strength
        found = mixed.round().astype(np.uint8)
    return found


def _with_colours_of(sent: npt.NDArray[np.uint8], painted: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the lightness of one picture in the colours of another (Gatys et al. 2016b, section 3.2: luminance only)."""
    lightness = Image.fromarray(painted).convert("YCbCr").getchannel(0)
    _, *colours = Image.fromarray(sent).convert("YCbCr").split()
    return np.asarray(Image.merge("YCbCr", (lightness, *colours)).convert("RGB"))
