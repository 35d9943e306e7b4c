"""What serving does around a translator: a picture in, a picture out, laid over the one that was sent.

Networks know squares of one side, which pictures are scaled to as those of the training were, whatever their shape.
Their answers are scaled back to the shape and, as a rule, the size that was sent.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from workers.families.answers import MAX_PIXELS, compare_pictures, encoded
from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.images import ImageInvalid, decode, from_tanh, to_pixels, to_tanh
from workers.families.instances import image_bytes, refuse_unknown
from workers.families.translation.data import to_square

_LARGEST = 2**20
"""Pixels of an answer's picture: what was sent larger is answered smaller, for no network knows more detail."""
_SIZES = ("sent", "network")
DIRECTIONS = ("AtoB", "BtoA")
"""The ways of a translator between two domains; the number of each is what its rows say."""
_IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Sent:
    """A picture as the network sees it, (3, side, side) of the range of Tanh, and the size it was sent in."""

    square: Tensor
    height: int
    width: int
    image: Tensor
    """uint8 (3, height, width), as it was sent."""


class TranslationHandler(Handler):
    """Answers `{"image": {"b64"}, "size": [H, W], "sent_size": [H, W], "network_size": [H, W]}`, a PNG.

    Parameters: `size`, `sent` (default): that of the picture which was sent, upright, but of a million pixels at most,
    with its shape; `network`: the square that the network drew.
    """

    params: tuple[str, ...] = ("size",)
    pictures: tuple[str, ...] = (_IMAGE,)
    """Fields of an answer that hold pictures, or lists of them."""

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.side = int(spec.input_shape[-1])

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        return [self._answer(instance, network) for instance in instances]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report the largest and the mean difference of a pixel."""
        ours, theirs = (
            [one for name in self.pictures for one in _listed(answer.get(name))] for answer in (expected, actual)
        )
        return compare_pictures(ours, theirs)

    def _answer(self, instance: Instance, network: Network) -> Mapping[str, Any] | InstanceInvalid:
        try:
            wish = self.read(instance)
            size = wish.get("size", _SIZES[0])
            if size not in _SIZES:
                raise InstanceInvalid(f"size must be {' or '.join(_SIZES)}, not {size!r:.50}")
            with torch.inference_mode():
                return self.translate(self.sent(image_bytes(instance)), wish, network)
        except InstanceInvalid as err:
            return err

    def read(self, instance: Instance) -> dict[str, Any]:
        """Return what is asked for beside the picture: the instance's fields over the request's parameters."""
        fields = {name: value for name, value in instance.fields.items() if name != _IMAGE}
        wish = {**instance.params, **fields}
        refuse_unknown(wish, self.params)
        return wish

    @abstractmethod
    def translate(self, sent: Sent, wish: Mapping[str, Any], network: Network) -> Mapping[str, Any]:
        """Return the answer; raises InstanceInvalid."""

    def sent(self, data: bytes) -> Sent:
        """Decode a picture and bring it to the network's square."""
        try:
            image = decode(data)
        except ImageInvalid as err:
            raise InstanceInvalid(str(err)) from err
        height, width = image.shape[-2:]
        return Sent(to_tanh(to_square(image, self.side)), height, width, image)

    def drawn(self, rows: Tensor, network: Network) -> Tensor:
        """Return what the network draws for rows (N, *input_shape), one at a time, so that none depends on others."""
        outputs = []
        for row in rows:
            output = network(row[None])
            assert isinstance(output, Tensor)
            outputs.append(output.float().cpu())
        return torch.cat(outputs)

    def sized(self, drawn: Tensor, sent: Sent, wish: Mapping[str, Any]) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """Return pictures (N, 3, side, side) encoded in the size asked for, and the facts about sizes."""
        size = self.size_of(drawn, sent, wish)
        return [encoded(Image.fromarray(to_pixels(one))) for one in in_size(drawn, size)], self.facts(size, sent)

    def size_of(self, drawn: Tensor, sent: Sent, wish: Mapping[str, Any]) -> tuple[int, int]:
        """Return height and width of the answer's pictures, of which there are as many as drawn ones."""
        if not bool(drawn.isfinite().all()):
            raise InstanceInvalid("the network drew values that are not finite; send another picture")
        is_square = wish.get("size", _SIZES[0]) == "network"
        size = (self.side, self.side) if is_square else (sent.height, sent.width)
        return within(size, min(_LARGEST, MAX_PIXELS // len(drawn)))

    def facts(self, size: tuple[int, int], sent: Sent) -> dict[str, Any]:
        """Return what an answer says about sizes."""
        return {
            "size": list(size),
            "sent_size": [sent.height, sent.width],
            "network_size": [self.side, self.side],
        }


class PairedHandler(TranslationHandler):
    """Answers with the one picture that a network of pairs draws."""

    def translate(self, sent: Sent, wish: Mapping[str, Any], network: Network) -> Mapping[str, Any]:
        (picture,), facts = self.sized(self.drawn(sent.square[None], network), sent, wish)
        return {_IMAGE: picture, **facts}


class TwoWayHandler(TranslationHandler):
    """Answers with a picture translated from either domain to the other.

    Parameters, beside `size`: `direction`, `AtoB` (default) or `BtoA`; `back=true` adds `back`, the answer translated
    back, which should be what was sent. The answer says `from` and `to`, the domains' names.
    """

    params = ("size", "direction", "back")
    pictures = (_IMAGE, "back")

    def translate(self, sent: Sent, wish: Mapping[str, Any], network: Network) -> Mapping[str, Any]:
        direction, with_back = wish.get("direction", DIRECTIONS[0]), wish.get("back", False)
        if direction not in DIRECTIONS:
            raise InstanceInvalid(f"direction must be {' or '.join(DIRECTIONS)}, not {direction!r:.50}")
        if not isinstance(with_back, bool):
            raise InstanceInvalid(f"back must be true or false, not {with_back!r:.50}")
        there = DIRECTIONS.index(direction)
        drawn = self.drawn(two_way_rows(sent.square[None], there), network)
        if with_back:
            drawn = torch.cat([drawn, self.drawn(two_way_rows(drawn, 1 - there), network)])
        pictures, facts = self.sized(drawn, sent, wish)
        names = [str(name) for name in self.spec.constants["classes"]]
        told = {"direction": direction, "from": names[there], "to": names[1 - there]}
        return {**dict(zip(self.pictures, pictures, strict=False)), **facts, **told}


def two_way_rows(images: Tensor, direction: int) -> Tensor:
    """Return rows (N, 4, H, W) of pictures: the last map says which way, 0 for A to B and 1 for B to A."""
    return torch.cat([images, torch.full_like(images[:, :1], float(direction))], 1)


def in_size(drawn: Tensor, size: tuple[int, int]) -> Tensor:
    """Return pictures of the range of Tanh as uint8 of a size."""
    if drawn.shape[-2:] != size:
        drawn = functional.interpolate(drawn, size, mode="bicubic", antialias=True)
    return from_tanh(drawn)


def within(size: tuple[int, int], most: int) -> tuple[int, int]:
    """Return the largest height and width of that shape with at most so many pixels."""
    height, width = size
    scale = math.sqrt(most / (height * width))
    if scale >= 1:
        return size
    height, width = max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
    # Of a strip one side is a pixel already; the other then has what is left.
    return (min(height, most // width), width) if height > width else (height, min(width, most // height))


def _listed(value: Any) -> list[Mapping[str, str]]:
    return [] if value is None else value if isinstance(value, list) else [value]
