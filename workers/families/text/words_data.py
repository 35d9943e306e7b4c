"""Words with neighbours and with noise, drawn anew at every step (Mikolov et al. 2013, arXiv:1310.4546, section 2).

A step draws places of the text, a reach for each and a neighbour within it, never across the end of a line. Frequent
words are passed over, as places and as neighbours; noise is drawn by frequency to a power below one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.core.errors import DatasetInvalid
from workers.engine.data import step_generator
from workers.families.base import Placement
from workers.families.text.config import Word2VecData
from workers.families.text.vocab import SPECIALS, Vocabulary

_TRIES = 8
"""Draws of a neighbour; a place where none of them is a word that is kept counts for nothing in its step."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Words (N,), a neighbour of each (N,), noise (N, K), and which of them count (N,)."""

    words: Tensor
    neighbours: Tensor
    noise: Tensor
    counts: Tensor

    def to(self, placement: Placement) -> Pairs:
        place = placement.device
        return Pairs(*(one.to(place) for one in (self.words, self.neighbours, self.noise, self.counts)))


class WordStream:
    """The known words of a text and the lines they stand in."""

    def __init__(self, text: str, vocabulary: Vocabulary, *, split: str) -> None:
        lines = [self._known(line, vocabulary) for line in text.split("\n")]
        lines = [line for line in lines if len(line) > 1]
        if not lines:
            text = f"no line of the split '{split}' has two words that are known"
            raise DatasetInvalid(f"{text}: add text, or lower vocab.min_count")
        self.words = torch.tensor([word for line in lines for word in line])
        self.lines = torch.repeat_interleave(torch.arange(len(lines)), torch.tensor([len(line) for line in lines]))

    @staticmethod
    def _known(line: str, vocabulary: Vocabulary) -> Sequence[int]:
        return [token for token in vocabulary.encode(line) if token >= len(SPECIALS)]


class PairDraws:
    """Draws the pairs of a step; `frequencies` are those of the training text, by id."""

    def __init__(
        self, stream: WordStream, frequencies: Tensor, *, data: Word2VecData, batch_size: int, seed: int
    ) -> None:
        self._stream, self._data, self._seed = stream, data, seed
        self.batch_size = batch_size
        self.steps_per_epoch = -(-len(stream.words) // batch_size)
        self._kept = kept_shares(frequencies, data.subsampling)
        self._places = self._kept[stream.words].double().cumsum(0)
        noise = frequencies.double().clamp(min=0)
        self._noise = torch.where(noise > 0, noise**data.noise_power, 0.0).cumsum(0)

    def batch(self, step: int) -> Pairs:
        draws = step_generator(self._seed, step)
        count = self.batch_size
        places = _drawn(self._places, (count,), draws)
        reach = torch.randint(1, self._data.window + 1, (count, 1), generator=draws)
        # Uniform within the reach of each, from -reach to reach without 0.
        share = torch.rand(count, _TRIES, generator=draws)
        offsets = (share * 2 * reach).long() - reach
        offsets = torch.where(offsets >= 0, offsets + 1, offsets)
        found = places[:, None] + offsets
        inside = (found >= 0) & (found < len(self._stream.words))
        found = found.clamp(0, len(self._stream.words) - 1)
        neighbours = self._stream.words[found]
        is_kept = torch.rand(count, _TRIES, generator=draws) < self._kept[neighbours]
        fits = inside & is_kept & (self._stream.lines[found] == self._stream.lines[places][:, None])
        first = fits.int().argmax(1, keepdim=True)
        return Pairs(
            words=self._stream.words[places],
            neighbours=neighbours.gather(1, first)[:, 0],
            noise=_drawn(self._noise, (count, self._data.negatives), draws),
            counts=fits.any(1),
        )


def kept_shares(frequencies: Tensor, threshold: float) -> Tensor:
    """Return how often each word is kept: the root of threshold over frequency, and always where that is more than 1."""
    if threshold == 0:
        return torch.ones(len(frequencies))
    return (threshold / frequencies.double().clamp(min=1e-12)).sqrt().clamp(max=1.0).float()


def frequencies_of(stream: WordStream, count: int) -> Tensor:
    """Return the share of each of `count` words in a text."""
    counts = torch.bincount(stream.words, minlength=count).double()
    return counts / counts.sum()


def _drawn(cumulated: Tensor, shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Draw places by weights, given as their running sum."""
    shares = torch.rand(shape, generator=draws, dtype=torch.float64) * cumulated[-1]
    return torch.searchsorted(cumulated, shares, right=True).clamp(max=len(cumulated) - 1)
