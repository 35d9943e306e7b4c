"""Averages follow their modules: slowly, faster at first, and whole where something else put the weights there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from workers.engine import ema
from workers.families.base import TrainState


@pytest.fixture
def state() -> TrainState:
    """A module of ones whose average is of zeros."""
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = ema.average_of(network)
    with torch.no_grad():
        for module, value in ((network, 1.0), (average, 0.0)):
            for parameter in module.parameters():
                parameter.fill_(value)
    network[1].running_mean.fill_(7.0)  # type: ignore[operator, union-attr]  # a batch norm's buffer
    return TrainState(modules={"network": network}, optimizers={}, ema={"network": average})


@pytest.mark.parametrize(
    ("step", "decay", "expected"),
    [
        pytest.param(10_000, 0.9, 0.1, id="as slowly as asked"),
        pytest.param(0, 0.9, 0.9, id="fast at the start"),
        pytest.param(0, 0.05, 0.95, id="never slower than asked"),
    ],
)
def test_an_average_moves_towards_its_module(state: TrainState, step: int, decay: float, expected: float) -> None:
    state.step = step

    ema.follow(state, "network", decay=decay)

    average = state.ema["network"]
    assert all(torch.allclose(one, torch.full_like(one, expected)) for one in average.parameters())
    assert average[1].running_mean.tolist() == [7.0, 7.0]  # type: ignore[index, union-attr]
    assert not any(one.requires_grad for one in average.parameters())


def test_parts_of_a_batch_move_no_average(state: TrainState) -> None:
    with ema.held():
        ema.follow(state, "network", decay=0.9)

    assert not any(one.any() for one in state.ema["network"].parameters())


def test_without_an_average_nothing_follows(state: TrainState) -> None:
    state.ema.clear()

    ema.follow(state, "network", decay=0.9)

    assert state.ema == {}


def test_a_restarted_average_is_its_module(state: TrainState) -> None:
    ema.restart(state)

    here, there = state.modules["network"].state_dict(), state.ema["network"].state_dict()
    assert all(torch.equal(here[key], there[key]) for key in here)
