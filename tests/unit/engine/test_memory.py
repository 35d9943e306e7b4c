from __future__ import annotations

import pytest
import torch
from torch import nn

from workers.engine.memory import measure, static_estimate_bytes
from workers.families.base import TrainState


def state_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    return TrainState(modules={"network": network}, optimizers={"optimizer": optimizer})


def test_the_fully_connected_gan_of_the_book_needs_what_was_counted_by_hand() -> None:
    with torch.device("meta"):
        network = nn.ParameterList([nn.Parameter(torch.empty(46_712_513))])
    state = state_of(network, torch.optim.Adam(network.parameters()))

    estimate = static_estimate_bytes(state)

    assert estimate == 46_712_513 * 16
    assert estimate // 1024 == 729_883


@pytest.mark.parametrize(
    ("make", "moments"),
    [
        pytest.param(lambda p: torch.optim.SGD(p, lr=0.1), 0, id="plain SGD keeps nothing"),
        pytest.param(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1, id="momentum"),
        pytest.param(torch.optim.AdamW, 2, id="two moments"),
        pytest.param(lambda p: torch.optim.Adam(p, amsgrad=True), 3, id="amsgrad keeps the largest"),
        pytest.param(lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.9), 3, id="centred with momentum"),
        pytest.param(torch.optim.Adagrad, 1, id="sum of squares"),
    ],
)
def test_the_estimate_before_the_first_step_is_that_after_it(make: object, moments: int) -> None:
    network = nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), nn.Linear(20, 5))
    assert callable(make)
    state = state_of(network, make(network.parameters()))

    before = static_estimate_bytes(state)
    network(torch.randn(4, 30)).sum().backward()
    state.optimizers["optimizer"].step()
    after = static_estimate_bytes(state)

    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert before == after == weights * (2 + moments) + 4 * 20 * 2 + 8


def test_frozen_weights_have_no_gradient_and_averages_count_once() -> None:
    network = nn.Linear(10, 10, bias=False).requires_grad_(False)
    state = TrainState(modules={"a": network}, optimizers={}, ema={"a": nn.Linear(10, 10, bias=False)})

    assert static_estimate_bytes(state) == 400 + 400


def test_measured_memory_is_of_this_process() -> None:
    figures = measure(torch.device("cpu"), 5)

    assert figures["static_estimate_bytes"] == 5
    assert figures["peak_bytes"] >= figures["alloc_bytes"] == figures["rss_bytes"] > 10**7
