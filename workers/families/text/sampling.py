"""Which token follows, of the scores of all: the best one, or one drawn, from all or from the likeliest few."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.families.base import InstanceInvalid
from workers.families.instances import fraction, number

_MAX_TEMPERATURE = 10.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn: 0 of `top_k` and 1 of `top_p` keep all, a temperature of 0 takes the best."""

    temperature: float
    top_k: int
    top_p: float

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Sampling:
        top_k = fields.get("top_k", 0)
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 0:
            raise InstanceInvalid(f"top_k must be a whole number from 0 (all) on, not {top_k!r:.50}")
        temperature = number(fields.get("temperature", 1.0), "temperature", 0.0, _MAX_TEMPERATURE)
        return cls(temperature, top_k, fraction(fields, "top_p", 1.0))

    def draw(self, scores: Tensor, generator: torch.Generator) -> int:
        """Return a token by its scores (V,); one that scores minus infinity is never drawn."""
        if self.temperature == 0 or self.top_k == 1:
            return int(scores.argmax())
        # In double precision, so that a draw depends on the network's answer and on nothing that rounds after it.
        ranked, order = (scores.double() / self.temperature).sort(descending=True, stable=True)
        shares = ranked.softmax(0)
        if self.top_k:
            shares[self.top_k :] = 0
        # The fewest tokens that hold the share asked for: those before which less than it was gathered.
        shares[1:][shares.cumsum(0)[:-1] >= self.top_p * shares.sum()] = 0
        place = torch.multinomial(shares, 1, generator=generator)
        return int(order[place])
