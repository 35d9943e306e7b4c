"""Reading latents, seeds and walks of a request. Everything raises InstanceInvalid, naming the field and what to send."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.families import latent
from workers.families.answers import MAX_PIXELS
from workers.families.base import InstanceInvalid
from workers.families.instances import count, flag, number

MAX_PICTURES = 256
_LEAST_WEIGHT = 4096
_MAX_SEED = 2**31
_MAX_NUMBER = 100.0
_MAX_GROUP = 64
_DEFAULT_STEPS = 8


def weight_of(shape: Sequence[int]) -> int:
    """Return what one sample (C, H, W) adds to the size of an answer, in pixels."""
    return max(_LEAST_WEIGHT, math.prod(shape[1:]))


def most_samples(shape: Sequence[int]) -> int:
    """Return how many samples (C, H, W) one answer may hold."""
    return max(2, min(MAX_PICTURES, MAX_PIXELS // weight_of(shape)))


@dataclass(frozen=True, slots=True)
class LatentWish:
    """The fields of one instance over the parameters of its request, for latents of one size and a limit of samples."""

    fields: Mapping[str, Any]
    latent_size: int
    limit: int

    def seeds(self, default_count: int = 1) -> list[int]:
        """Return `n` seeds that follow `seed`."""
        n = count(self.fields, "n", default_count, limit=self.limit)
        first = self.seed("seed", 0)
        return [(first + k) % _MAX_SEED for k in range(n)]

    def seed(self, name: str, default: int) -> int:
        value = self.fields.get(name, default)
        if not is_seed(value):
            raise InstanceInvalid(f"{name} must be a whole number from 0 to {_MAX_SEED - 1}, not {value!r:.50}")
        return int(value)

    def bases(self) -> tuple[Tensor, dict[str, Any]]:
        """Return the latents to start from (N, D), given as `z` or as `seed` and `n`, and what to answer of them."""
        if "z" not in self.fields:
            seeds = self.seeds()
            return latent.draw(seeds, self.latent_size), {"seeds": seeds}
        if {"seed", "n"} & self.fields.keys():
            raise InstanceInvalid("give z, or seed and n, not both")
        return self.points("z"), {}

    def points(self, name: str) -> Tensor:
        """Return one or many latents (N, D): a seed or vector, or a list of them.

        Numbers are a vector where there are as many as a latent has, else seeds.
        """
        value = self.fields.get(name)
        many: Sequence[Any] = value if self._is_list_of_latents(value) and value is not None else [value]
        if len(many) > self.limit:
            raise InstanceInvalid(f"{name} has {len(many)} latents; at most {self.limit} fit one answer")
        places = [name] if many is not value else [f"{name}[{k}]" for k in range(len(many))]
        return torch.stack([self.point(one, place) for one, place in zip(many, places, strict=True)])

    def _is_list_of_latents(self, value: Any) -> bool:
        if not isinstance(value, list | tuple) or not value:
            return False
        if all(map(_is_number, value)):
            return len(value) != self.latent_size and all(map(is_seed, value))
        return True

    def point(self, value: Any, place: str) -> Tensor:
        """Return a latent (D,) given by its seed or as numbers; `place` names it in messages."""
        if is_seed(value):
            return latent.draw([value], self.latent_size)[0]
        return self.vector(value, place)

    def vector(self, value: Any, place: str) -> Tensor:
        size = self.latent_size
        is_right = isinstance(value, list | tuple) and len(value) == size and all(map(_is_number, value))
        if not is_right:
            got = f"a list of {len(value)}" if isinstance(value, list | tuple) else f"{value!r:.50}"
            text = f"a seed (a whole number from 0) or a list of {size} numbers"
            text += f" from -{_MAX_NUMBER:g} to {_MAX_NUMBER:g}"
            raise InstanceInvalid(
                f"{place} is missing: give {text}" if value is None else f"{place} must be {text}, not {got}"
            )
        return torch.tensor(value, dtype=torch.float32)

    def group(self, value: Any, place: str) -> Tensor:
        """Return the latents (N, D) of a group that is not empty."""
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MAX_GROUP:
            text = f"{place} must be a list of 1 to {_MAX_GROUP} seeds or latents"
            raise InstanceInvalid(f"{text}; the mean of three or more is steadier than one")
        return torch.stack([self.point(one, f"{place}[{k}]") for k, one in enumerate(value)])

    def way(self) -> tuple[int, latent.Mode]:
        """Return how many latents a walk passes, `steps`, and along which `mode`."""
        steps = count(self.fields, "steps", min(_DEFAULT_STEPS, self.limit), limit=self.limit)
        if steps == 1:
            raise InstanceInvalid("steps must be at least 2: both ends are drawn")
        return steps, "lerp" if self.choice("mode", ("slerp", "lerp")) == "lerp" else "slerp"

    def number(self, name: str, default: float, low: float, high: float) -> float:
        return number(self.fields.get(name, default), name, low, high)

    def flag(self, name: str, *, default: bool) -> bool:
        return flag(self.fields, name, default=default)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self.fields.get(name, choices[0])
        if value not in choices:
            raise InstanceInvalid(f"{name} must be {' or '.join(choices)}, not {value!r:.50}")
        return str(value)


def is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_SEED


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) <= _MAX_NUMBER
