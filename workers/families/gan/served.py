"""The form in which a generator is served: one row of numbers in, one picture or point out.

A row holds everything an operation may set, so that one exported network answers all of them: the latent,
a second one for style mixing, the class, the layers that take the second style, the truncation, and a gain
for every hidden unit. Servers and `Recipe.golden` make rows with `Row` and read pictures with the handler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workers.families.base import ServingSpec
from workers.families.gan.generators import Generator
from workers.families.gan.style import StyleGenerator
from workers.families.gan.units import count_units, gated


@dataclass(frozen=True, slots=True)
class Parts:
    """A batch of rows taken apart."""

    z: Tensor
    fine: Tensor
    labels: Tensor | None
    takes_fine: Tensor
    truncation: Tensor
    gains: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where what lies in a row. `layers` are pairs of a hidden layer's name and its units."""

    latent_size: int
    class_count: int = 0
    style_count: int = 0
    layers: tuple[tuple[str, int], ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        styled = (self.latent_size, self.style_count, 1) if self.style_count else (0, 0, 0)
        return (self.latent_size, *styled, self.class_count, *(units for _, units in self.layers))

    @property
    def width(self) -> int:
        return sum(self.sizes)

    def split(self, rows: Tensor) -> Parts:
        z, fine, takes_fine, truncation, classes, *gains = torch.split(rows, list(self.sizes), dim=1)
        return Parts(
            z=z,
            fine=fine,
            labels=classes.argmax(1) if self.class_count else None,
            takes_fine=takes_fine,
            truncation=truncation,
            gains={name: part for (name, _), part in zip(self.layers, gains, strict=True)},
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "latent_size": self.latent_size,
            "class_count": self.class_count,
            "style_count": self.style_count,
            "layers": [list(pair) for pair in self.layers],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RowLayout:
        layers = tuple((str(name), int(units)) for name, units in stored["layers"])
        return cls(int(stored["latent_size"]), int(stored["class_count"]), int(stored["style_count"]), layers)


@dataclass(frozen=True, slots=True)
class Row:
    """What to draw; `fine` styles the layers from `cut` on, `gains` are of the layers named."""

    z: Tensor
    label: int | None = None
    truncation: float = 1.0
    fine: Tensor | None = None
    cut: int = 0
    gains: Mapping[str, Tensor] = field(default_factory=dict)

    def pack(self, layout: RowLayout) -> Tensor:
        """Return the row, float32 (width,)."""
        # Without a mapping network the prior's own middle is the mean that truncation leads to.
        parts = [self.z if layout.style_count else self.z * self.truncation]
        if layout.style_count:
            takes_fine = torch.zeros(layout.style_count)
            if self.fine is not None:
                takes_fine[self.cut :] = 1.0
            parts += [self.z if self.fine is None else self.fine, takes_fine, torch.tensor([self.truncation])]
        if layout.class_count:
            parts.append(torch.eye(layout.class_count)[self.label or 0])
        parts += [self.gains.get(name, torch.ones(units)) for name, units in layout.layers]
        return torch.cat([part.float() for part in parts])


class ServedGenerator(nn.Module):
    """Rows (N, width) in; what the generator draws, in fp32, out."""

    def __init__(self, generator: Generator, layout: RowLayout) -> None:
        super().__init__()
        self.generator = generator
        self.layout = layout

    def forward(self, rows: Tensor) -> Tensor:
        parts = self.layout.split(rows)
        with gated(self.generator, parts.gains):
            if self.layout.style_count:
                return self._styled(parts).float()
            drawn: Tensor = self.generator(parts.z, parts.labels)
            return drawn.float()

    def _styled(self, parts: Parts) -> Tensor:
        generator = self.generator
        assert isinstance(generator, StyleGenerator)
        coarse = generator.styles(generator.mapping(parts.z), psi=parts.truncation)
        fine = generator.styles(generator.mapping(parts.fine), psi=parts.truncation)
        return generator.synthesis(torch.where(parts.takes_fine[:, :, None] > 0.5, fine, coarse))


def layout_of(generator: Generator) -> RowLayout:
    """Return the layout of a generator's rows; runs it once."""
    device = next(generator.parameters()).device
    labels = torch.zeros(1, dtype=torch.int64, device=device) if generator.class_count else None
    z = torch.zeros(1, generator.latent_size, device=device)
    was_training = generator.training
    units = count_units(generator.eval(), generator.hidden_layers(), lambda: generator(z, labels))
    generator.train(was_training)
    styles = generator.style_count if isinstance(generator, StyleGenerator) else 0
    return RowLayout(generator.latent_size, generator.class_count, styles, tuple(units.items()))


def serving_spec(generator: Generator, *, output: Sequence[int], classes: Sequence[str] = ()) -> ServingSpec:
    """Return what the handler needs; `output` is the shape of one picture (C, H, W), or (2,) for points."""
    layout = layout_of(generator)
    constants = {
        "row": layout.to_json(),
        "output": list(output),
        "classes": list(classes),
        "units": {},
        "directions": {},
    }
    return ServingSpec(input_shape=(layout.width,), constants=constants)


def load_served(generator: Generator, spec: ServingSpec) -> ServedGenerator:
    """Return the network to serve, of a generator built for the same config, ready for its weights."""
    return ServedGenerator(generator, RowLayout.from_json(spec.constants["row"]))
