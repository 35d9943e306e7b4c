"""What serving does around a network that colours: a picture in, the same lightness in likely colours out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch.nn import functional

from workers.families.answers import encoded
from workers.families.base import Network
from workers.families.images import from_tanh, to_pixels, to_tanh
from workers.families.translation.handler import Sent, TranslationHandler
from workers.families.translation.lab import from_lab, to_lab


class ColorizeHandler(TranslationHandler):
    """Answers with the picture that was sent in new colours, whatever its own were; it stays as light and as sharp."""

    def translate(self, sent: Sent, wish: Mapping[str, Any], network: Network) -> Mapping[str, Any]:
        light, _ = to_lab(sent.square[None])
        colour = self.drawn(light, network)
        size = self.size_of(colour, sent, wish)
        own = to_tanh(sent.image[None])
        if own.shape[-2:] != size:
            own = functional.interpolate(own, size, mode="bilinear", antialias=True)
        colour = functional.interpolate(colour, size, mode="bilinear", antialias=True)
        (picture,) = from_tanh(from_lab(to_lab(own)[0], colour))
        return {"image": encoded(Image.fromarray(to_pixels(picture))), **self.facts(size, sent)}
