"""Batches as a pure function of the step: nothing about the data needs saving, and a resume at any step,
with any number of loader processes, sees the very same bytes.

Families build their `BatchSource` from `ShuffledBatches`, `step_generator` and `seeded_rng`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from workers.engine import rng
from workers.engine.errors import LOADER_SIGNAL
from workers.families.base import BatchSource

BatchT = TypeVar("BatchT")
_ENDING_SECONDS = 1.0


def derived_seed(purpose: str, *numbers: int) -> int:
    """Return a seed that differs for every purpose and every tuple of numbers, the same on all machines."""
    text = ":".join((purpose, *map(str, numbers)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def epoch_permutation(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order of an epoch: a permutation of range(count)."""
    generator = torch.Generator().manual_seed(derived_seed("epoch", seed, epoch))
    return torch.randperm(count, generator=generator)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of every random draw of a step's batch."""
    return torch.Generator().manual_seed(derived_seed("step", seed, step))


@contextmanager
def seeded_rng(seed: int, step: int) -> Iterator[None]:
    """Seed the global generators for a step's batch and put them back after.

    For augmentation that draws from the global generators, as torchvision.transforms.v2 does.
    """
    state = rng.capture(include_cuda=False)
    value = derived_seed("augment", seed, step)
    try:
        random.seed(value)
        np.random.seed(value % 2**32)
        torch.default_generator.manual_seed(value)
        yield
    finally:
        rng.restore(state)


class ShuffledBatches:
    """Which samples form the batch of a step.

    The epochs' permutations are laid end to end and cut into batches, so that every sample comes once an
    epoch, all batches have the same size, and data sets smaller than a batch work.
    """

    def __init__(self, *, seed: int, count: int, batch_size: int) -> None:
        if count < 1 or batch_size < 1:
            raise ValueError(f"cannot draw batches of {batch_size} from {count} samples")
        self.batch_size = batch_size
        self.steps_per_epoch = -(-count // batch_size)
        self._count = count
        self._order = lru_cache(maxsize=2)(lambda epoch: epoch_permutation(seed, epoch, count).tolist())

    def indices(self, step: int) -> list[int]:
        """Return the samples of the batch of `step`, which counts updates done before it."""
        start = step * self.batch_size
        return [self._sample(position) for position in range(start, start + self.batch_size)]

    def _sample(self, position: int) -> int:
        epoch, place = divmod(position, self._count)
        order: Sequence[int] = self._order(epoch)
        return order[place]


class _Steps(Dataset[BatchT]):
    def __init__(self, source: BatchSource[BatchT]) -> None:
        self._source = source

    def __getitem__(self, step: int) -> BatchT:
        return self._source.batch(step)


def _keep(batch: BatchT) -> BatchT:
    return batch


@contextmanager
def open_batches(
    source: BatchSource[BatchT], *, first_step: int, total_steps: int, num_workers: int
) -> Iterator[Iterator[BatchT]]:
    """Yield the batches of the steps from `first_step` on; loader processes end with the context."""
    # An own generator, since making an iterator draws a base seed, which would move the global one.
    loader: DataLoader[BatchT] = DataLoader(
        _Steps(source),
        batch_size=None,
        sampler=range(first_step, total_steps),
        num_workers=num_workers,
        collate_fn=_keep,
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=_one_thread,
    )
    iterator = iter(loader)
    try:
        yield iterator
    except (RuntimeError, OSError, EOFError) as err:
        _note_death(err, iterator)
        raise
    finally:
        # DataLoader offers no other way to end its processes before garbage collection does.
        shutdown = getattr(iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()


def _note_death(err: Exception, iterator: Iterator[BatchT]) -> None:
    """Say by which signal a loader process died: DataLoader knows it only where its signal handler came first.

    One that dies while it hands over a tensor is seen as a broken connection, a moment before it has ended.
    """
    workers = getattr(iterator, "_workers", ())
    if isinstance(err, ConnectionError | EOFError):
        for process in workers:
            process.join(_ENDING_SECONDS)
    codes = [process.exitcode for process in workers]
    signals = [-code for code in codes if code is not None and code < 0]
    if signals:
        setattr(err, LOADER_SIGNAL, signals[0])


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
