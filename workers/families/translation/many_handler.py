"""What serving does around a translator of many answers: a picture in, several out, and the code of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.families.answers import MAX_PIXELS
from workers.families.base import Instance, InstanceInvalid, Network, ServingSpec
from workers.families.instances import count, encoded_bytes
from workers.families.latent import draw
from workers.families.translation.bicycle_networks import many_rows
from workers.families.translation.handler import Sent, TranslationHandler

_MOST = 64
_USUAL = 5
_MAX_SEED = 2**31
_MAX_NUMBER = 100.0


@dataclass(frozen=True, slots=True)
class _Codes:
    """Codes (N, latent_size) and, where they were drawn, their seeds; or the picture whose code is taken."""

    z: Tensor
    seeds: tuple[int, ...] = ()
    style: bytes | None = None


class ManyHandler(TranslationHandler):
    """Answers `{"images": [{"b64"}], "z": [[...]], "seeds": [...]}` and the sizes.

    Parameters, beside `size`: `n` (5) and `seed` (0): answer k is that of `seed` + k, whatever is drawn beside it; or `z`, a
    code or a list of codes, such as an answer said; or `style_image`, `{"b64"}`, a picture whose style the answer takes.
    """

    params = ("size", "n", "seed", "z", "style_image")
    pictures = ("images",)

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.latent_size = int(spec.constants["latent_size"])
        self.has_encoder = bool(spec.constants["has_encoder"])
        self.limit = max(1, min(_MOST, MAX_PIXELS // self.side**2))

    def weigh(self, instance: Instance) -> int:
        try:
            codes = self._codes(self.read(instance))
        except InstanceInvalid:
            return 0
        return len(codes.z) * self.side**2

    def translate(self, sent: Sent, wish: Mapping[str, Any], network: Network) -> Mapping[str, Any]:
        codes = self._codes(wish)
        style = None if codes.style is None else self._style(codes.style)
        drawn, used = [], []
        for row in many_rows(sent.square, codes.z, style=style):
            outputs = network(row[None])
            assert isinstance(outputs, tuple)
            drawn.append(outputs[0].float().cpu())
            used.append(outputs[1].float().cpu())
        pictures, facts = self.sized(torch.cat(drawn), sent, wish)
        seeds = {"seeds": list(codes.seeds)} if codes.seeds else {}
        return {"images": pictures, "z": torch.cat(used).tolist(), **seeds, **facts}

    def _codes(self, wish: Mapping[str, Any]) -> _Codes:
        given = [name for name in ("z", "style_image") if name in wish]
        drawn = [name for name in ("n", "seed") if name in wish]
        if len(given) > 1 or (given and drawn):
            one, other = [*given, *drawn][:2]
            raise InstanceInvalid(f"{one} says which code to use already: leave out {other}")
        if "z" in wish:
            return _Codes(self._vectors(wish["z"]))
        if "style_image" in wish:
            if not self.has_encoder:
                raise InstanceInvalid("style_image: this model has no encoder; leave it out, or send z or seed")
            return _Codes(torch.zeros(1, self.latent_size), style=encoded_bytes(wish["style_image"], "style_image"))
        seeds = self._seeds(wish)
        return _Codes(draw(seeds, self.latent_size), seeds)

    def _seeds(self, wish: Mapping[str, Any]) -> tuple[int, ...]:
        number = count(wish, "n", min(_USUAL, self.limit), limit=self.limit)
        first = wish.get("seed", 0)
        if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first < _MAX_SEED:
            raise InstanceInvalid(f"seed must be a whole number from 0 to {_MAX_SEED - 1}, not {first!r:.50}")
        return tuple(range(first, first + number))

    def _vectors(self, value: Any) -> Tensor:
        many = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
        if len(many) > self.limit:
            raise InstanceInvalid(f"z has {len(many)} codes; at most {self.limit} of this model fit one answer")
        for place, one in enumerate(many):
            if not (isinstance(one, list) and len(one) == self.latent_size and all(map(_is_number, one))):
                where = "z" if many is not value else f"z[{place}]"
                got = f"a list of {len(one)}" if isinstance(one, list) else f"{one!r:.50}"
                text = f"{where} must be a list of {self.latent_size} numbers from -{_MAX_NUMBER:g} to {_MAX_NUMBER:g}"
                raise InstanceInvalid(f"{text}, not {got}")
        return torch.tensor(many, dtype=torch.float32)

    def _style(self, data: bytes) -> Tensor:
        try:
            return self.sent(data).square
        except InstanceInvalid as err:
            raise InstanceInvalid(f"style_image: {err}") from err


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER
