"""The steps: who learns from what, in which order, and what a resume needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.translation.conftest import BATCH, CPU, make, started
from workers.families.base import TrainState
from workers.families.catalog import CATALOG
from workers.families.translation.bicyclegan import ENCODER, Bicyclegan, divergence
from workers.families.translation.cyclegan import OF_A, OF_B, TO_A, TO_B, Cyclegan
from workers.families.translation.discogan import Discogan, feature_distance
from workers.families.translation.pix2pix import Pix2pix
from workers.families.translation.recipe import DISCRIMINATOR, GENERATOR


def step(recipe: Any, state: TrainState) -> dict[str, Tensor]:
    batch = recipe.to_device(recipe.train_batches().batch(state.step), CPU)
    scalars: dict[str, Tensor] = recipe.train_step(state, batch, CPU)
    state.step += 1
    return scalars


def weights(state: TrainState, name: str) -> list[Tensor]:
    return [value.detach().clone() for value in state.modules[name].parameters()]


def is_changed(before: list[Tensor], after: list[Tensor]) -> bool:
    return not all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_loss_of_a_pair_is_the_game_and_a_hundred_times_the_distance(data: Callable[[str], Path]) -> None:
    recipe: Pix2pix = make("pix2pix", data)

    told = step(recipe, started(recipe))

    assert float(told["train/loss"]) == pytest.approx(float(told["train/loss_generator"] + 100 * told["train/l1"]))


def test_the_rate_is_constant_for_half_of_the_training_and_falls_to_nothing(data: Callable[[str], Path]) -> None:
    recipe: Pix2pix = make("pix2pix", data, limits={"max_steps": 100}, optim={"lr": 1e-3, "lr_discriminator": 4e-3})
    state = started(recipe)
    rates = []
    for state.step in (0, 50, 75, 99):
        recipe.set_rates(state)
        rates.append([state.optimizers[player].param_groups[0]["lr"] for player in (GENERATOR, DISCRIMINATOR)])

    factors = [1.0, 1.0, 0.5, 0.02]
    assert rates == [[pytest.approx(factor * 1e-3), pytest.approx(factor * 4e-3)] for factor in factors]


def test_a_rate_that_never_falls_is_the_peak_to_the_end(data: Callable[[str], Path]) -> None:
    recipe: Pix2pix = make("pix2pix", data, limits={"max_steps": 100}, schedule={"decay_from": 1.0})
    state = started(recipe)
    state.step = 99

    recipe.set_rates(state)

    assert state.optimizers[GENERATOR].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_each_player_s_optimizer_moves_its_own_networks_alone(data: Callable[[str], Path]) -> None:
    recipe: Cyclegan = make("cyclegan", data)
    state = started(recipe)
    before = {name: weights(state, name) for name in state.modules}

    recipe._teach_generators(state, recipe.to_device(recipe.train_batches().batch(0), CPU), CPU)

    changed = {name for name in state.modules if is_changed(before[name], weights(state, name))}
    assert changed == {TO_B, TO_A}
    assert all(value.requires_grad for name in (OF_A, OF_B) for value in state.modules[name].parameters())


def test_the_pools_are_part_of_the_state_and_fill_step_by_step(data: Callable[[str], Path]) -> None:
    recipe: Cyclegan = make("cyclegan", data, loss={"pool_size": 6})
    state = started(recipe)

    step(recipe, state)

    is_filled = {name: pool.flatten(1).abs().sum(1) > 0 for name, pool in state.tensors.items()}
    assert {name: filled.tolist() for name, filled in is_filled.items()} == {
        name: [True] * BATCH + [False] * 2 for name in ("pool_a", "pool_b")
    }


def test_without_a_pool_there_is_nothing_to_keep(data: Callable[[str], Path]) -> None:
    recipe: Cyclegan = make("cyclegan", data, loss={"pool_size": 0})
    state = started(recipe)

    step(recipe, state)

    assert state.tensors == {}


@pytest.mark.parametrize(("share", "has_it"), [(0.0, False), (0.5, True)])
def test_identity_counts_by_its_share_of_the_cycle(share: float, has_it: bool, data: Callable[[str], Path]) -> None:
    recipe: Cyclegan = make("cyclegan", data, loss={"identity": share})

    told = step(recipe, started(recipe))

    expected = told["train/loss_generator"] + 10 * told["train/cycle_l1"]
    if has_it:
        expected = expected + 5 * told["train/identity_l1"]
    assert ("train/identity_l1" in told) == has_it
    assert float(told["train/loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_step_of_discogan_has_a_batch_for_each_of_its_three_updates(data: Callable[[str], Path]) -> None:
    recipe: Discogan = make("discogan", data)
    state = started(recipe)

    step(recipe, state)

    counts = {
        player: {int(one["step"]) for one in optimizer.state.values()} for player, optimizer in state.optimizers.items()
    }
    assert recipe.train_batches().batch_size == 3 * BATCH
    assert counts == {GENERATOR: {2}, DISCRIMINATOR: {1}}


def test_what_comes_back_weighs_little_until_the_first_steps_are_over(data: Callable[[str], Path]) -> None:
    recipe: Discogan = make("discogan", data, loss={"rate_start": 0.01, "rate": 0.5, "start_steps": 1})
    state = started(recipe)

    for rate in (0.01, 0.5):
        told = step(recipe, state)

        others = 0.1 * told["train/loss_generator"] + 0.9 * told["train/features"]
        assert float(told["train/loss"]) == pytest.approx(
            float((1 - rate) * others + rate * told["train/cycle"]), rel=1e-5
        )


def test_features_are_compared_by_their_means_over_the_batch() -> None:
    real = [torch.tensor([[0.0, 2.0], [4.0, 2.0]]), torch.tensor([[1.0], [1.0]])]
    fake = [torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0], [-1.0]])]

    # Means 2 and 2 against 2 and 0; 1 against -0.5.
    assert float(feature_distance(real, fake)) == pytest.approx((0 + 4) / 2 + 1.5**2)


def bicycle_gradients(data: Callable[[str], Path], part: str, **loss: Any) -> dict[str, float]:
    """Return the length of the gradient that one part of the loss has for each network."""
    recipe: Bicyclegan = make("bicyclegan", data, loss=loss)
    state = started(recipe)
    batch, _ = recipe.to_device(recipe.train_batches().batch(0), CPU).parts(2)

    _, parts = recipe.generator_losses(state, batch, CPU)
    parts[part].backward()  # type: ignore[no-untyped-call]

    return {
        name: sum(float(value.grad.abs().sum()) for value in state.modules[name].parameters() if value.grad is not None)
        for name in (GENERATOR, ENCODER)
    }


def test_a_drawn_code_teaches_the_generator_and_the_encoder_exactly_nothing(data: Callable[[str], Path]) -> None:
    found = bicycle_gradients(data, "code")

    assert found[GENERATOR] > 0
    assert found[ENCODER] == 0


@pytest.mark.parametrize("part", ["l1", "game_encoded"])
def test_a_target_s_own_code_teaches_both(part: str, data: Callable[[str], Path]) -> None:
    assert min(bicycle_gradients(data, part).values()) > 0


def test_without_encoded_targets_a_drawn_code_teaches_both(data: Callable[[str], Path]) -> None:
    assert min(bicycle_gradients(data, "code", mode="clr").values()) > 0


@pytest.mark.parametrize(
    ("mode", "parts", "judges"),
    [
        ("bicycle", {"kl", "game_encoded", "game_drawn", "l1", "code"}, {"encoded", "drawn"}),
        ("cvae", {"kl", "game_encoded", "l1"}, {"encoded"}),
        ("clr", {"game_drawn", "code"}, {"drawn"}),
        ("noise", {"game_drawn", "l1"}, {"drawn"}),
    ],
)
def test_each_mode_has_its_losses_and_networks_of_which_all_learn(
    mode: str, parts: set[str], judges: set[str], data: Callable[[str], Path]
) -> None:
    recipe: Bicyclegan = make("bicyclegan", data, loss={"mode": mode})
    state = started(recipe)
    before = {name: weights(state, name) for name in state.modules}

    told = step(recipe, state)

    assert {name.removeprefix("train/") for name in told} == parts | {"loss", "loss_discriminator"}
    assert set(state.modules) == {
        GENERATOR,
        *([ENCODER] if mode != "noise" else []),
        *(f"discriminator_{j}" for j in judges),
    }
    assert all(is_changed(before[name], weights(state, name)) for name in state.modules)


def test_the_divergence_of_a_normal_code_is_nothing_and_a_mean_over_pictures() -> None:
    zeros = torch.zeros(3, 8)

    assert float(divergence(zeros, zeros)) == 0
    assert float(divergence(torch.ones(1, 8), torch.zeros(1, 8))) == pytest.approx(4)
    assert float(divergence(torch.ones(5, 8), torch.zeros(5, 8))) == pytest.approx(4)


@pytest.mark.parametrize(
    ("name", "sections", "remedy"),
    [
        pytest.param(
            "pix2pix", {"data": {"image_size": 40, "load_size": 40}}, "can be halved 3 times only", id="depth"
        ),
        pytest.param("pix2pix", {"data": {"load_size": 16}}, "data.load_size must be at least", id="nothing to cut"),
        pytest.param("pix2pix", {"model": {"discriminator_layers": 4}}, "lower the first or raise", id="patches"),
        pytest.param("cyclegan", {"data": {"image_size": 34, "load_size": 34}}, "a multiple of 4", id="quarters"),
        pytest.param("discogan", {"data": {"image_size": 48, "load_size": 48}}, "a power of two", id="halvings"),
        pytest.param("bicyclegan", {"data": {"batch_size": 3}}, "must be even, not 3", id="halves of a batch"),
    ],
)
def test_a_config_that_cannot_be_built_names_the_field_and_the_remedy(
    name: str, sections: dict[str, Any], remedy: str
) -> None:
    kind = CATALOG[f"translation/{name}"].load_config()
    config = kind.preset("tiny").model_dump(mode="json")
    for section, values in sections.items():
        config[section] |= values

    with pytest.raises(ValueError, match=remedy):
        kind.model_validate(config)
