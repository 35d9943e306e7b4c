"""One update from the parts of its batch, for a device that has not the memory for all of it at once.

Each part goes through the recipe's own step. Until the last one optimizers, schedulers and averages stand still, and
gradients are kept aside, weighed by the share of samples; the last part's backward adds them before anything, such
as clipping, looks at them. What differs from the whole batch is rounding, and statistics of batch normalisation.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

from torch import Tensor

from workers.engine import ema
from workers.engine.errors import OutOfMemory, is_out_of_memory
from workers.engine.training import Training
from workers.families.base import TrainState


def step(training: Training, batch: Any) -> dict[str, Tensor]:
    """Do one update with a batch as the loader gave it, in as many parts as the plan says.

    Raises:
        OutOfMemory: the device has not enough memory; it says into how many parts to cut next.
    """
    try:
        batch = training.recipe.to_device(batch, training.placement)
        parts = training.plan.micro_batches
        if parts == 1:
            return training.recipe.train_step(training.state, batch, training.placement)
        return _step_in_parts(training, batch, parts)
    except (MemoryError, RuntimeError) as err:
        if not is_out_of_memory(err):
            raise
        raise _explained(training, err) from err


def cut(batch: Any, parts: int) -> list[tuple[Any, float]]:
    """Cut a batch into parts of nearly the same size, each with its share of the samples.

    Raises:
        ValueError: the batch is not made of tensors and lists with one row a sample.
    """
    rows = _rows(batch)
    if rows is None or rows < parts:
        raise ValueError(f"a batch of {rows or 'no known number of'} samples cannot be cut into {parts} parts")
    edges = [rows * number // parts for number in range(parts + 1)]
    return [(_slice(batch, start, end), (end - start) / rows) for start, end in itertools.pairwise(edges)]


def _step_in_parts(training: Training, batch: Any, parts: int) -> dict[str, Tensor]:
    totals: dict[str, Tensor] = {}
    pieces = cut(batch, parts)
    with _Gathering(training.state) as gathering:
        for number, (piece, share) in enumerate(pieces, start=1):
            with gathering.part(share, is_last=number == parts):
                scalars = training.recipe.train_step(training.state, piece, training.placement)
            for name, value in scalars.items():
                totals[name] = totals[name] + share * value if name in totals else share * value
    return totals


class _Gathering:
    """Hooks on every trained parameter for the time of one update."""

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._kept: dict[int, Tensor] = {}
        self._share = 1.0
        self._is_last = False
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        for optimizer in self._state.optimizers.values():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.requires_grad:
                        hook = parameter.register_hook(partial(self._take, parameter))
                        self._hooks.callback(hook.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    @contextmanager
    def part(self, share: float, *, is_last: bool) -> Iterator[None]:
        self._share, self._is_last = share, is_last
        if not is_last:
            with self._standing_still():
                yield
            return
        yield
        if self._kept:
            raise RuntimeError(f"{len(self._kept)} parameters have no gradient in the last part of a batch")

    def _take(self, parameter: Tensor, gradient: Tensor) -> Tensor | None:
        weighed = gradient * self._share
        kept = self._kept.pop(id(parameter), None)
        if kept is not None:
            weighed += kept
        if self._is_last:
            return weighed
        self._kept[id(parameter)] = weighed
        return None

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        with ExitStack() as still:
            still.enter_context(ema.held())
            for one in (*self._state.optimizers.values(), *self._state.schedulers.values()):
                still.enter_context(_without_step(one))
            yield


@contextmanager
def _without_step(one: Any) -> Iterator[None]:
    """Make `one.step()` do nothing; on the instance, where schedulers leave their own wrapper of it."""
    before = one.__dict__.get("step")
    one.step = lambda *_, **__: None
    try:
        yield
    finally:
        if before is None:
            del one.step
        else:
            one.step = before


def _explained(training: Training, err: BaseException) -> OutOfMemory:
    plan, size = training.plan, training.source.batch_size
    recipe, number = plan.recipe, training.state.step
    told = " ".join(str(err).split())[:200] or type(err).__name__
    following = 2 * plan.micro_batches
    if training.recipe.is_batch_divisible and following <= size:
        text = f"the device ran out of memory at step {number} with {size // plan.micro_batches} samples at a time ({told})"
        return OutOfMemory(text, step=number, micro_batches=following)
    why = (
        "single samples are too large"
        if training.recipe.is_batch_divisible
        else f"{recipe} cannot cut a batch into parts"
    )
    text = f"the device ran out of memory at step {number}, and {why}: lower data.batch_size or the image size ({told})"
    return OutOfMemory(text, step=number, micro_batches=None)


def _rows(batch: Any) -> int | None:
    """Return the number of samples all parts of a batch agree on, or None."""
    counts = set(_counts(batch))
    return counts.pop() if len(counts) == 1 else None


def _counts(value: Any) -> Iterator[int]:
    if isinstance(value, Tensor):
        if value.ndim:
            yield len(value)
    elif dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from _counts(getattr(value, item.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _counts(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _counts(item)
    elif isinstance(value, list):
        yield len(value)


def _slice(value: Any, start: int, end: int) -> Any:
    if isinstance(value, Tensor):
        return value[start:end] if value.ndim else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {item.name: _slice(getattr(value, item.name), start, end) for item in dataclasses.fields(value)}
        return dataclasses.replace(value, **items)
    if isinstance(value, Mapping):
        return {name: _slice(item, start, end) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_slice(item, start, end) for item in value)
    return value[start:end] if isinstance(value, list) else value


def warn_of_parts(training: Training) -> str | None:
    """Return what to tell people where updates are made of parts."""
    parts = training.plan.micro_batches
    if parts == 1:
        return None
    size = training.source.batch_size
    return f"each batch of {size} is trained in {parts} parts, since the device ran out of memory; rounding differs"
