"""Reading what a caller asks of a generator. Everything raises InstanceInvalid, naming the field and what to send."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.families.base import InstanceInvalid, ServingSpec
from workers.families.gan.latent import draw
from workers.families.gan.served import RowLayout
from workers.families.instances import count, fraction

MAX_PICTURES = 256
MAX_PIXELS = 2**21
"""Of one answer: seconds of drawing at worst, and what fits a response of the server even as noise."""
_LEAST_WEIGHT = 4096
_MAX_SEED = 2**31
_MAX_NUMBER = 100.0
_MAX_GROUP = 64


@dataclass(frozen=True, slots=True)
class Model:
    """What a bundle says of its generator: `output` is the shape of a picture (C, H, W), or (D,) of a point."""

    layout: RowLayout
    output: tuple[int, ...]
    classes: tuple[str, ...]
    units: Mapping[str, Mapping[str, Any]]
    directions: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, spec: ServingSpec) -> Model:
        constants = spec.constants
        return cls(
            layout=RowLayout.from_json(constants["row"]),
            output=tuple(map(int, constants["output"])),
            classes=tuple(map(str, constants["classes"])),
            units=constants["units"],
            directions=constants["directions"],
        )

    @property
    def is_picture(self) -> bool:
        return len(self.output) == 3

    @property
    def weight(self) -> int:
        """What one sample adds to the size of an answer, in pixels."""
        return max(_LEAST_WEIGHT, math.prod(self.output[1:]))

    @property
    def limit(self) -> int:
        """Most samples of one answer."""
        return max(2, min(MAX_PICTURES, MAX_PIXELS // self.weight))


@dataclass(frozen=True, slots=True)
class Wish:
    """The fields of one instance over the parameters of its request, and the model they are for."""

    fields: Mapping[str, Any]
    model: Model

    def seeds(self, default_count: int = 1) -> list[int]:
        """Return `n` seeds that follow `seed`; as many as there are labels, where these alone are given."""
        if isinstance(labels := self.fields.get("labels"), list | tuple):
            default_count = max(1, len(labels))
        n = count(self.fields, "n", default_count, limit=self.model.limit)
        first = self.fields.get("seed", 0)
        if not _is_seed(first):
            raise InstanceInvalid(f"seed must be a whole number from 0 to {_MAX_SEED - 1}, not {first!r:.50}")
        return [(first + k) % _MAX_SEED for k in range(n)]

    def bases(self) -> tuple[Tensor, dict[str, Any]]:
        """Return the latents to start from (N, D), given as `z` or as `seed` and `n`, and what to answer of them."""
        if "z" not in self.fields:
            seeds = self.seeds()
            return draw(seeds, self.model.layout.latent_size), {"seeds": seeds}
        if {"seed", "n"} & self.fields.keys():
            raise InstanceInvalid("give z, or seed and n, not both")
        return self.points("z"), {}

    def points(self, name: str) -> Tensor:
        """Return one or many latents (N, D): a seed or vector, or a list of them.

        Numbers are a vector where there are as many as a latent has, else seeds.
        """
        value = self.fields.get(name)
        many: Sequence[Any] = value if self._is_list_of_latents(value) and value is not None else [value]
        if len(many) > self.model.limit:
            raise InstanceInvalid(f"{name} has {len(many)} latents; at most {self.model.limit} fit one answer")
        places = [name] if many is not value else [f"{name}[{k}]" for k in range(len(many))]
        return torch.stack([self.point(one, place) for one, place in zip(many, places, strict=True)])

    def _is_list_of_latents(self, value: Any) -> bool:
        if not isinstance(value, list | tuple) or not value:
            return False
        if all(map(_is_number, value)):
            return len(value) != self.model.layout.latent_size and all(map(_is_seed, value))
        return True

    def point(self, value: Any, place: str) -> Tensor:
        """Return a latent (D,) given by its seed or as numbers; `place` names it in messages."""
        size = self.model.layout.latent_size
        if _is_seed(value):
            return draw([value], size)[0]
        return self.vector(value, place)

    def vector(self, value: Any, place: str) -> Tensor:
        size = self.model.layout.latent_size
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

    def number(self, name: str, default: float, low: float, high: float) -> float:
        return number(self.fields.get(name, default), name, low, high)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.fields.get(name, default)
        if not isinstance(value, bool):
            raise InstanceInvalid(f"{name} must be true or false, not {value!r:.50}")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self.fields.get(name, choices[0])
        if value not in choices:
            raise InstanceInvalid(f"{name} must be {' or '.join(choices)}, not {value!r:.50}")
        return str(value)

    @property
    def truncation(self) -> float:
        return fraction(self.fields, "truncation", 1.0)

    def labels(self, total: int, *, seeds: Sequence[int] = ()) -> list[int | None]:
        """Return the class of each sample: `labels`, or `class` for all; by default the first, or that of its seed.

        Classes follow each other with the seeds, so that a seed is drawn as one class whatever it is drawn beside.
        """
        classes = self.model.classes
        if not classes:
            if given := {"class", "labels"} & self.fields.keys():
                raise InstanceInvalid(f"{min(given)}: this generator has no classes; leave it out")
            return [None] * total
        if "labels" not in self.fields:
            one = self._label(self.fields["class"], "class") if "class" in self.fields else None
            if one is None and seeds:
                return [seed % len(classes) for seed in seeds]
            return [one or 0] * total
        many = self.fields["labels"]
        if "class" in self.fields or not isinstance(many, list | tuple) or len(many) != total:
            raise InstanceInvalid(f"labels must be a list of {total}, one a sample, or give one class for all")
        return [self._label(one, f"labels[{k}]") for k, one in enumerate(many)]

    def _label(self, value: Any, place: str) -> int:
        classes = self.model.classes
        if isinstance(value, str) and value in classes:
            return classes.index(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(classes):
            return value
        shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        raise InstanceInvalid(f"{place} has the unknown class {value!r:.50}; this model knows {shown}")


def number(value: Any, place: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InstanceInvalid(f"{place} must be a number from {low:g} to {high:g}, not {value!r:.50}")
    return float(value)


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_SEED


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) <= _MAX_NUMBER
