"""Makes the updates of several processes those of one process with the whole batch.

Each process takes its rows of every batch. When a backward ends, the gradients it made are averaged, weighed by
rows, before anything such as clipping looks at them; so a recipe's step, with any number of networks, optimizers and
backwards, stays as it is. What a recipe must keep to is in `Recipe.train_step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from workers.engine import rng
from workers.engine.batchnorm import share_batch_norm
from workers.engine.crew import ALONE, Crew
from workers.engine.data import derived_seed
from workers.families.base import TrainState

BUCKET_BYTES = 32 * 2**20
"""Gradients travel in pieces of this size: one is packed while another is under way."""


def rows_of(batch_size: int, *, rank: int, size: int) -> slice:
    """Return the rows of a batch that a process takes: parts as even as they can be."""
    return slice(batch_size * rank // size, batch_size * (rank + 1) // size)


class Parallel:
    """One process's part in the updates of a job; with a crew of one, nothing happens here."""

    def __init__(self, crew: Crew, *, batch_size: int, seed: int) -> None:
        rows = rows_of(batch_size, rank=crew.rank, size=crew.size)
        self.crew = crew
        self.rows = rows
        self.share = (rows.stop - rows.start) / batch_size
        self._seed = seed

    @classmethod
    def alone(cls) -> Parallel:
        return cls(ALONE, batch_size=1, seed=0)

    def join(self, state: TrainState) -> None:
        """Tie a state to those of the other processes: equal from now on, after every update."""
        if self.crew.is_alone:
            return
        for module in state.modules.values():
            share_batch_norm(module, self.crew, share=self.share)
        for tensor in _tensors(state):
            self.crew.copy_(tensor)
        GradientAverage(state.modules.values(), self.crew, share=self.share)

    def begin_step(self, step: int) -> None:
        """Seed the global generators for what a process draws in a step, so that nothing of them needs saving."""
        if not self.crew.is_alone:
            rng.seed_all(derived_seed("rank", self._seed, step, self.crew.rank))

    def mean_count(self, count: Tensor) -> Tensor:
        """See `Placement.mean_count`."""
        if self.crew.is_alone:
            return count
        total = count.detach().to(torch.float32, copy=True)
        self.crew.sum_(total)
        scaled: Tensor = total * self.share
        return scaled

    def mean(self, scalars: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the scalars of a step as the whole batch's; all processes have the same names."""
        if self.crew.is_alone or not scalars:
            return scalars
        values = torch.stack([value.detach().to(torch.float32) for value in scalars.values()]).mul_(self.share)
        self.crew.sum_(values)
        return dict(zip(scalars, values, strict=True))


class GradientAverage:
    """Averages what each backward leaves in the gradients of some modules, at its very end.

    All processes must touch the same parameters in a backward. A gradient that two backwards add to is averaged
    twice, which changes nothing: what was averaged before is the same in every process.
    """

    def __init__(self, modules: Iterable[nn.Module], crew: Crew, *, share: float) -> None:
        self._crew = crew
        self._share = share
        unique = {id(parameter): parameter for module in modules for parameter in module.parameters()}
        self._parameters = list(unique.values())
        self._touched: set[int] = set()
        for index, parameter in enumerate(self._parameters):
            _add_hook(parameter, partial(self._note, index))

    def _note(self, index: int, _: Tensor) -> None:
        if not self._touched:
            # The engine's own way to act once, after all of a backward: torch's wrappers for data parallelism use it.
            Variable._execution_engine.queue_callback(self._average)
        self._touched.add(index)

    @torch.no_grad()
    def _average(self) -> None:
        found = (self._parameters[index].grad for index in sorted(self._touched))
        gradients = [gradient for gradient in found if gradient is not None]
        self._touched.clear()
        buckets = list(_buckets(gradients))
        packed = [torch.cat([one.reshape(-1) for one in bucket]).mul_(self._share) for bucket in buckets]
        self._crew.sum_(*packed)
        for bucket, flat in zip(buckets, packed, strict=True):
            for gradient, piece in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                gradient.copy_(piece.view(gradient.shape))


def _add_hook(parameter: nn.Parameter, hook: partial[None]) -> None:
    # A parameter that is frozen now may be trained later, and torch takes hooks of trained ones only.
    is_trained = parameter.requires_grad
    parameter.requires_grad_(True)
    parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
    parameter.requires_grad_(is_trained)


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a list into runs of one type and at most the size of a bucket, or of a single gradient."""
    for _, alike in groupby(gradients, key=lambda one: (one.dtype, one.device)):
        bucket: list[Tensor] = []
        size_bytes = 0
        for gradient in alike:
            if bucket and size_bytes + gradient.nbytes > BUCKET_BYTES:
                yield bucket
                bucket, size_bytes = [], 0
            bucket.append(gradient)
            size_bytes += gradient.nbytes
        yield bucket


def _tensors(state: TrainState) -> Iterator[Tensor]:
    for modules in (state.modules, state.ema):
        for name in sorted(modules):
            yield from (value for value in modules[name].state_dict().values() if isinstance(value, Tensor))
    yield from (state.tensors[name] for name in sorted(state.tensors))
