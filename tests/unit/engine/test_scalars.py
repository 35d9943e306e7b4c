from __future__ import annotations

import math

import pytest
import torch

from workers.engine.errors import NonFiniteLoss
from workers.engine.scalars import History, ScalarWindow

CPU = torch.device("cpu")


def test_a_window_gives_means_even_of_scalars_that_come_now_and_then() -> None:
    window = ScalarWindow(CPU)
    window.add({"loss": torch.tensor(1.0)}, step=1)
    window.add({"loss": torch.tensor(3.0), "penalty": torch.tensor(5.0)}, step=2)

    assert window.read(step=2) == {"loss": 2.0, "penalty": 5.0}


def test_a_reset_begins_anew() -> None:
    window = ScalarWindow(CPU)
    window.add({"loss": torch.tensor(1.0)}, step=1)
    window.reset()
    window.add({"loss": torch.tensor(9.0)}, step=2)

    assert window.read(step=2) == {"loss": 9.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_scalar_that_is_not_finite_is_named_at_its_step(bad: float) -> None:
    window = ScalarWindow(CPU)
    window.add({"loss": torch.tensor(1.0), "d_loss": torch.tensor(1.0)}, step=6)

    with pytest.raises(NonFiniteLoss, match="d_loss is not a finite number at step 7") as caught:
        window.add({"loss": torch.tensor(1.0), "d_loss": torch.tensor(bad)}, step=7)

    assert caught.value.step == 7


def test_a_restored_window_goes_on_exactly() -> None:
    values = torch.rand(7).tolist()
    straight, first, second = ScalarWindow(CPU), ScalarWindow(CPU), ScalarWindow(CPU)
    for step, value in enumerate(values):
        straight.add({"loss": torch.tensor(value)}, step=step)
        (first if step < 3 else second).add({"loss": torch.tensor(value)}, step=step)
        if step == 2:
            second.restore(first.to_json())

    assert second.read(step=7) == straight.read(step=7)


def test_history_stays_bounded_and_keeps_its_ends() -> None:
    history = History()
    for step in range(5000):
        history.add(step, {"loss": 1.0 / (step + 1)})

    points = history.curves["loss"]
    assert len(points) <= History.CAPACITY
    assert points[0] == [0, 1.0]
    assert points[-1][0] == 4999
