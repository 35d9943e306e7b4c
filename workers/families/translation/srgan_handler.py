"""What serving does around a super-resolution network: a picture in, the same picture larger out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from workers.families.answers import MAX_PIXELS, encoded
from workers.families.base import InstanceInvalid, Network, ServingSpec
from workers.families.images import from_tanh, to_pixels, to_tanh
from workers.families.instances import flag
from workers.families.translation.handler import Sent, TranslationHandler, within
from workers.families.translation.srgan_networks import enlarged
from workers.families.translation.tiles import by_tiles

_PLAIN = "bicubic"


class SrganHandler(TranslationHandler):
    """Answers `{"image": {"b64"}, "size": [H, W], "sent_size": [H, W], "scale"}`, a PNG of all of the picture, larger.

    Parameters: `compare=true` adds `bicubic`, the picture enlarged by plain interpolation.
    """

    params = ("compare",)
    pictures = ("image", _PLAIN)

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.scale, self.margin = int(spec.constants["scale"]), int(spec.constants["margin"])

    def translate(self, sent: Sent, wish: Mapping[str, Any], network: Network) -> Mapping[str, Any]:
        with_plain = flag(wish, "compare")
        most = MAX_PIXELS // (self.scale**2 * (2 if with_plain else 1))
        if sent.height * sent.width > most:
            height, width = within((sent.height, sent.width), most)
            plainly = ", or leave out compare, which halves that" if with_plain else ""
            raise InstanceInvalid(
                f"the image has {sent.width}x{sent.height} pixels, and each becomes {self.scale**2}; send one of at most "
                f"{most} pixels, such as a part of it, or all of it at {width}x{height}{plainly}"
            )
        image = to_tanh(sent.image)
        drawn = by_tiles(
            image, lambda tiles: self.drawn(tiles, network), tile=self.side, margin=self.margin, scale=self.scale
        )
        if not bool(drawn.isfinite().all()):
            raise InstanceInvalid("the network drew values that are not finite; send another picture")
        answer: dict[str, Any] = {
            "image": _picture(drawn),
            "size": list(drawn.shape[1:]),
            "sent_size": [sent.height, sent.width],
            "scale": self.scale,
        }
        if with_plain:
            answer[_PLAIN] = _picture(enlarged(image[None], self.scale)[0])
        return answer


def _picture(image: Tensor) -> dict[str, str]:
    return encoded(Image.fromarray(to_pixels(from_tanh(image))))
