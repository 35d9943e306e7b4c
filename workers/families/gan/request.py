"""Reading what a caller asks of a generator. Everything raises InstanceInvalid, naming the field and what to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.families.base import InstanceInvalid, ServingSpec
from workers.families.gan.served import RowLayout
from workers.families.instances import fraction
from workers.families.latent_wish import LatentWish, most_samples, weight_of


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
        return weight_of(self.output)

    @property
    def limit(self) -> int:
        """Most samples of one answer."""
        return most_samples(self.output)


@dataclass(frozen=True, slots=True)
class Wish(LatentWish):
    """What is asked of a generator, and which one."""

    model: Model

    @classmethod
    def of(cls, fields: Mapping[str, Any], model: Model) -> Wish:
        return cls(fields, model.layout.latent_size, model.limit, model)

    def seeds(self, default_count: int = 1) -> list[int]:
        """Return `n` seeds that follow `seed`; as many as there are labels, where these alone are given."""
        if isinstance(labels := self.fields.get("labels"), list | tuple):
            default_count = max(1, len(labels))
        # Not super(): a class with slots is made anew, and does not know itself by its first name.
        return LatentWish.seeds(self, default_count)

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
