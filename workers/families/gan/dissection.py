"""Finds the hidden units that draw an attribute, and what is left of it without them.

A unit's weight adds up two figures, each in its standard deviations over the layer: how well its activations tell places
of the attribute from others (Radford et al. 2016, section 6.3.2), and what drawing without it does to the attribute (Bau
et al., "GAN Dissection", ICLR 2019, section 3.2). By the first alone one generator of three kept the attribute in four
samples of ten; by the second alone, what fools the network that sees attributes here need not fool another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.gan.generators import Generator
from workers.families.gan.units import gated, recorded, unit_weights
from workers.families.gan.units_config import Box, FindUnitsConfig
from workers.families.latent import direction

Judge = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) from -1 to 1 to logits of the attributes (N, A)."""

_LATENT_SEED = 11
_RANDOM_SEED = 13
_FEWEST = 5
"""Samples with and without an attribute; on fewer nothing can be learned."""
_DIFFERS = 0.25
"""Places that differ by this share of the most are where an attribute shows."""
_MAX_CELLS = 32
"""A side of the maps that are compared; larger ones are averaged."""
_ROWS = 50_000
_TRIED = 64
"""Samples that are drawn without each unit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one attribute; rates are of the samples that had it."""

    attribute: str
    layer: str
    weights: Tensor
    units: tuple[int, ...]
    direction: Tensor
    share: float
    """Of all samples, how many have the attribute."""
    kept: float
    """How many still have it without the units."""
    kept_random: float
    """How many still have it without as many random units."""
    z: Tensor
    """Latents of some samples that have it."""
    labels: Tensor | None
    random_units: tuple[int, ...]


class Dissection:
    """A generator, the network that sees attributes in what it draws, and one set of latents for all questions."""

    def __init__(self, generator: Generator, judge: Judge, config: FindUnitsConfig, *, device: torch.device) -> None:
        self._generator, self._judge, self._config, self._device = generator, judge, config, device
        draws = torch.Generator().manual_seed(_LATENT_SEED)
        self._z = torch.randn(config.eval.num_images, generator.latent_size, generator=draws)
        count = generator.class_count
        self._labels = torch.arange(len(self._z)) % count if count else None
        # The second highest, as in the paper: the highest draws strokes and colours that all things share.
        self.layer = config.search.layer or generator.hidden_layers()[-2:][0]

    def find(self, attributes: Sequence[str]) -> list[Finding]:
        """Return what was found of each attribute that is neither in nearly all nor in hardly any sample."""
        with torch.inference_mode():
            has = self._seen(torch.arange(len(self._z)))
        found = []
        for column, name in enumerate(attributes):
            present, absent = (torch.nonzero(has[:, column] == side).flatten() for side in (True, False))
            if min(len(present), len(absent)) >= _FEWEST:
                found.append(self._find_one(name, column, present, absent))
        return found

    def chosen(self, weights: Tensor) -> tuple[int, ...]:
        """Return the units that draw an attribute, of the weights of all."""
        return tuple(torch.nonzero(weights > self._config.search.min_weight).flatten().tolist())

    def draw(self, z: Tensor, labels: Tensor | None, units: Sequence[int] = ()) -> Tensor:
        """Return images (N, C, H, W) on the host, drawn without some units."""
        gains = None
        if units:
            gains = torch.ones(self._unit_count(), device=self._device)
            gains[list(units)] = 0.0
        size = self._config.eval.batch_size
        parts = []
        for start in range(0, len(z), size):
            rows = z[start : start + size].to(self._device)
            own = None if labels is None else labels[start : start + size].to(self._device)
            gate = nullcontext() if gains is None else gated(self._generator, {self.layer: gains.expand(len(rows), -1)})
            with torch.inference_mode(), gate:
                parts.append(self._generator(rows, own).float().cpu())
        return torch.cat(parts)

    def _find_one(self, name: str, column: int, present: Tensor, absent: Tensor) -> Finding:
        limits = self._config.eval
        some, others = present[: limits.num_examples], absent[: limits.num_examples]
        told_apart = self._weights(some, others, box=self._config.search.boxes.get(name))
        weights = in_deviations(told_apart) + in_deviations(self._effects(some[:_TRIED], column))
        units = self.chosen(weights)
        draws = torch.Generator().manual_seed(_RANDOM_SEED)
        random = [
            tuple(torch.randperm(len(weights), generator=draws)[: len(units)].tolist())
            for _ in range(limits.num_random)
        ]
        kept_random = [float(self._seen(present, one)[:, column].double().mean()) for one in random]
        shown = present[: limits.num_samples]
        return Finding(
            attribute=name,
            layer=self.layer,
            weights=weights,
            units=units,
            direction=direction(self._z[present], self._z[absent]),
            share=len(present) / len(self._z),
            kept=float(self._seen(present, units)[:, column].double().mean()),
            kept_random=sum(kept_random) / len(kept_random),
            z=self._z[shown],
            labels=None if self._labels is None else self._labels[shown],
            random_units=random[0],
        )

    def _effects(self, present: Tensor, column: int) -> Tensor:
        """Return by how much the attribute's logit falls without each unit (U,), in the mean of samples that have it."""
        whole = self._logits(present)[:, column].mean()
        alone = [self._logits(present, (unit,))[:, column].mean() for unit in range(self._unit_count())]
        return whole - torch.stack(alone)

    def _weights(self, present: Tensor, absent: Tensor, *, box: Box | None) -> Tensor:
        """Return how well each unit tells places of the attribute from all else (section 6.3.2).

        Else are the other places of the same samples, and the same places of samples without it.
        """
        (with_it, seen), (without, unseen) = self._maps(present), self._maps(absent)
        place = inside(box, tuple(with_it.shape[2:])) if box else differing(seen, unseen, tuple(with_it.shape[2:]))
        beside = [_some(_rows(with_it, ~place))] if bool((~place).any()) else []
        return unit_weights(_some(_rows(with_it, place)), _some(_rows(without, place)), *beside)

    def _maps(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the layer gives for samples, (N, U, h, w), and the mean image (C, H, W)."""
        maps, total = [], torch.zeros(())
        for z, labels in self._batches(which):
            with recorded(self._generator, [self.layer]) as found:
                total = total + self.draw(z, labels).sum(0)
            maps.append(_coarse(found[self.layer].float()).cpu())
        return torch.cat(maps), total / len(which)

    def _seen(self, which: Tensor, units: Sequence[int] = ()) -> Tensor:
        """Return which attributes the judge sees in samples, drawn without some units; bool (N, A)."""
        return self._logits(which, units) > 0

    def _logits(self, which: Tensor, units: Sequence[int] = ()) -> Tensor:
        """Return what the judge says of samples, drawn without some units, (N, A) on the host."""
        batches = self._batches(which)
        return torch.cat([self._judge(self.draw(z, labels, units).to(self._device)).cpu() for z, labels in batches])

    def _batches(self, which: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        for part in torch.split(which, self._config.eval.batch_size):
            yield self._z[part], None if self._labels is None else self._labels[part]

    def _unit_count(self) -> int:
        with torch.inference_mode(), recorded(self._generator, [self.layer]) as found:
            labels = None if self._labels is None else self._labels[:1].to(self._device)
            self._generator(self._z[:1].to(self._device), labels)
        return found[self.layer].shape[1]


def in_deviations(figures: Tensor) -> Tensor:
    """Return figures of units (U,) over their standard deviation, their signs kept; zeros where all are the same."""
    spread = figures.std(correction=0)
    return figures / spread if spread > 0 else torch.zeros_like(figures)


def inside(box: Box, size: tuple[int, ...]) -> Tensor:
    """Return the cells of maps (h, w) that a box of fractions touches."""
    height, width = size
    rows, columns = torch.arange(height), torch.arange(width)
    left, top, right, bottom = box
    in_rows = ((rows + 1) / height > top) & (rows / height < bottom)
    in_columns = ((columns + 1) / width > left) & (columns / width < right)
    return in_rows[:, None] & in_columns


def differing(one: Tensor, other: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the cells of maps (h, w) where two mean images (C, H, W) differ most."""
    change = (one - other).abs().mean(0)[None, None]
    coarse = functional.adaptive_avg_pool2d(change, (size[0], size[1]))[0, 0]
    return coarse >= _DIFFERS * coarse.max()


def _coarse(maps: Tensor) -> Tensor:
    """Return maps (N, U, h, w) of no more cells than are needed to tell where something is; one where there are none."""
    if maps.ndim == 2:
        return maps[:, :, None, None]
    height, width = maps.shape[2:]
    if max(height, width) <= _MAX_CELLS:
        return maps
    return functional.adaptive_avg_pool2d(maps, (min(height, _MAX_CELLS), min(width, _MAX_CELLS)))


def _rows(maps: Tensor, place: Tensor) -> Tensor:
    """Return the activations of all units at places, (N * P, U)."""
    return maps[:, :, place].transpose(1, 2).flatten(0, 1)


def _some(rows: Tensor) -> Tensor:
    if len(rows) <= _ROWS:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, _ROWS).long()]
