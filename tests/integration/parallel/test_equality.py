"""Several processes that share each batch train what one process trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.integration.parallel.conftest import Trials
from tests.integration.workers.yard import tiny_config
from workers.families.catalog import CATALOG

STEPS = 20
BATCH = 8
TOLERANCE = 1e-5


def config_of(recipe: str) -> dict[str, Any]:
    config = CATALOG[recipe].load_config().preset("tiny").model_dump(mode="json")
    config["data"]["batch_size"] = BATCH
    config["limits"] = tiny_config(max_steps=STEPS, checkpoint_every_steps=STEPS)["limits"]
    config["schedule"]["warmup_steps"] = 0
    config["runtime"] |= {"precision": "fp32", "channels_last": "off"}
    return config


def test_two_processes_train_the_parameters_of_one(
    trials: Trials, record_property: Callable[[str, object], None]
) -> None:
    recipe, config = "detection/yolo_v1", config_of("detection/yolo_v1")
    # Rounding differs from processor to processor, and grows with every step by what the rate allows: at 5e-3 with
    # Adam, 1e-7 of one became 6e-4 of the other. `test_rounding.py` holds that training to 1e-9 in double precision.
    config["optim"] |= {"name": "sgd", "lr": 2e-5}

    alone, together = (trials.run(processes=number, config=config, recipe=recipe) for number in (1, 2))

    expected, found = trials.network(alone.id), trials.network(together.id)
    assert found.keys() == expected.keys()
    differences = {name: float((found[name] - expected[name]).abs().max()) for name in expected}
    averages = {name for name in expected if "running_" in name}
    largest = max(value for name, value in differences.items() if name not in averages)
    record_property("largest_difference", largest)
    losses = trials.losses(alone.id)
    assert averages
    assert losses[STEPS] < 0.9 * losses[1]  # it trains, so there is something to differ in
    assert largest < TOLERANCE
    # Running averages are as large as activations, of which the same rounding leaves more.
    for name in averages:
        torch.testing.assert_close(found[name], expected[name], atol=TOLERANCE, rtol=1e-4)
    assert trials.losses(together.id) == pytest.approx(losses, rel=1e-4)


def test_a_loss_over_a_count_of_the_whole_batch_is_that_of_one_process(trials: Trials) -> None:
    """SSD's: parts of a batch differ in positives, and three parts of eight images in size too."""
    recipe, config = "detection/ssd", config_of("detection/ssd")

    alone, together = (trials.run(processes=number, config=config, recipe=recipe) for number in (1, 3))

    expected, found = trials.losses(alone.id), trials.losses(together.id)
    # Before the first update, then after updates that grow what is rounded; `test_rounding.py` is about those.
    assert found[1] == pytest.approx(expected[1], rel=1e-6)
    assert found == pytest.approx(expected, rel=0.02)
