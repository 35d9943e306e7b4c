from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.data import ShuffledBatches, epoch_permutation, seeded_rng, step_generator

SEEDS = st.integers(0, 2**31 - 1)


@given(seed=SEEDS, epoch=st.integers(0, 10**6), count=st.integers(1, 300))
def test_an_epoch_is_a_permutation_and_depends_on_nothing_else(seed: int, epoch: int, count: int) -> None:
    torch.manual_seed(epoch)

    order = epoch_permutation(seed, epoch, count)

    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, epoch_permutation(seed, epoch, count))


def test_epochs_and_seeds_give_different_orders() -> None:
    orders = {tuple(epoch_permutation(seed, epoch, 50).tolist()) for seed in range(5) for epoch in range(5)}

    assert len(orders) == 25


@given(seed=SEEDS, count=st.integers(1, 40), batch_size=st.integers(1, 50), steps=st.integers(1, 30))
def test_batches_have_one_size_and_cut_the_epochs_laid_end_to_end(
    seed: int, count: int, batch_size: int, steps: int
) -> None:
    batches = ShuffledBatches(seed=seed, count=count, batch_size=batch_size)

    drawn = [batches.indices(step) for step in range(steps)]

    flat = [index for batch in drawn for index in batch]
    assert {len(batch) for batch in drawn} == {batch_size}
    for start in range(0, len(flat) - count + 1, count):
        assert sorted(flat[start : start + count]) == list(range(count))


@given(steps=st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_the_batch_of_a_step_does_not_depend_on_the_steps_asked_before(steps: list[int]) -> None:
    used = ShuffledBatches(seed=3, count=17, batch_size=4)
    for step in steps:
        used.indices(step)

    fresh = ShuffledBatches(seed=3, count=17, batch_size=4)

    assert used.indices(steps[0]) == fresh.indices(steps[0])


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 samples"):
        ShuffledBatches(seed=0, count=0, batch_size=4)


def test_draws_of_a_step_repeat_and_steps_differ() -> None:
    first = torch.rand(4, generator=step_generator(1, 5))

    assert torch.equal(first, torch.rand(4, generator=step_generator(1, 5)))
    assert not torch.equal(first, torch.rand(4, generator=step_generator(1, 6)))


def test_seeded_global_generators_repeat_for_a_step_and_are_put_back() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def seed() -> None:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    seed()
    expected_next = draw()
    seed()

    with seeded_rng(7, 3):
        inside = draw()
    after = draw()
    with seeded_rng(7, 3):
        again = draw()

    assert inside == again
    assert after == expected_next
