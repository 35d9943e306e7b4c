"""Each player's loss by its formula, to the gradients that a step leaves; rates are so small that no step moves anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from tests.unit.translation.conftest import CPU, make, started
from workers.families.base import TrainState
from workers.families.translation.bicyclegan import ENCODER, OF_DRAWN, OF_ENCODED
from workers.families.translation.context_encoder import fill
from workers.families.translation.cyclegan import OF_A, OF_B, TO_A, TO_B
from workers.families.translation.data import Batch
from workers.families.translation.recipe import DISCRIMINATOR, GENERATOR
from workers.families.translation.srgan import FEATURES

Data = Callable[[str], Path]
STILL = 1e-12


def lively(network: nn.Module) -> None:
    """Give weights the size of their inputs: with fresh ones all logits are near 0, and real is as good as fake."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)


def begun(recipe: Any) -> tuple[TrainState, Batch]:
    """Return a state whose networks' outputs differ much, and the batch of the first step."""
    state = started(recipe)
    for network in state.modules.values():
        lively(network)
        for parameter in network.parameters():
            # As a step before would have left it.
            parameter.grad = torch.ones_like(parameter)
    return state, recipe.to_device(recipe.train_batches().batch(0), CPU)


def assert_learned(loss: Tensor, *networks: nn.Module) -> None:
    """Compare the gradients that a step left with those of a loss."""
    parameters = [value for network in networks for value in network.parameters()]
    wanted = torch.autograd.grad(loss, parameters, retain_graph=True)
    size = max(float(one.abs().max()) for one in wanted)
    assert size > 0
    for parameter, one in zip(parameters, wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, one, rtol=1e-3, atol=1e-4 * size)


def told(scalars: dict[str, Tensor]) -> dict[str, float]:
    return {name.removeprefix("train/"): float(value) for name, value in scalars.items()}


def approx(values: dict[str, Tensor]) -> dict[str, Any]:
    return {name: pytest.approx(float(value.detach()), rel=1e-4, abs=1e-6) for name, value in values.items()}


def squares(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def crossed(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(-real).mean() + softplus(fake).mean()


def test_pix2pix_learns_from_the_game_beside_the_input_and_from_the_distance_to_the_target(data: Data) -> None:
    recipe = make("pix2pix", data, optim={"lr": STILL})
    state, batch = begun(recipe)

    found = told(recipe.train_step(state, batch, CPU))

    generator, judge = state.modules[GENERATOR], state.modules[DISCRIMINATOR]
    fake = generator(batch.a)
    judged = judge(torch.cat([batch.a, fake], 1))
    against = 0.5 * crossed(judge(torch.cat([batch.a, batch.b], 1)), judge(torch.cat([batch.a, fake.detach()], 1)))
    game, distance = softplus(-judged).mean(), (fake - batch.b).abs().mean()
    total = game + 100 * distance
    wanted = {"loss": total, "loss_generator": game, "loss_discriminator": against, "l1": distance}
    assert found == approx(wanted)
    assert_learned(total, generator)
    assert_learned(against, judge)


def test_cyclegan_learns_from_both_games_both_ways_back_and_what_should_stay(data: Data) -> None:
    recipe = make("cyclegan", data, optim={"lr": STILL}, loss={"identity": 0.5})
    state, batch = begun(recipe)

    found = told(recipe.train_step(state, batch, CPU))

    to_b, to_a, of_a, of_b = (state.modules[name] for name in (TO_B, TO_A, OF_A, OF_B))
    fake_b, fake_a = to_b(batch.a), to_a(batch.b)
    game = 0.5 * ((of_b(fake_b) - 1).square().mean() + (of_a(fake_a) - 1).square().mean())
    cycle = (to_a(fake_b) - batch.a).abs().mean() + (to_b(fake_a) - batch.b).abs().mean()
    same = (to_b(batch.b) - batch.b).abs().mean() + (to_a(batch.a) - batch.a).abs().mean()
    total = game + 10 * cycle + 5 * same
    # The first images of a pool are shown themselves.
    against = 0.5 * (squares(of_a(batch.a), of_a(fake_a.detach())) + squares(of_b(batch.b), of_b(fake_b.detach())))
    wanted = {"loss": total, "loss_generator": game, "cycle_l1": cycle, "identity_l1": same}
    assert found == approx({**wanted, "loss_discriminator": against})
    assert_learned(total, to_b, to_a)
    assert_learned(against, of_a, of_b)


def test_cyclegan_s_discriminators_are_shown_what_the_pool_gives_them(data: Data) -> None:
    recipe = make("cyclegan", data, optim={"lr": STILL}, loss={"pool_size": 1})
    state, batch = begun(recipe)
    older = {"pool_a": torch.full((3, 32, 32), -0.5), "pool_b": torch.full((3, 32, 32), 0.5)}
    for name, image in older.items():
        state.tensors[name][0] = image
    # The pool is full once a batch was seen.
    state.step = 1
    # Of four draws of either domain the first below a half takes what is in the pool.
    seed = next(seed for seed in range(10_000) if _first_two_turns_are_exchanges(seed))
    torch.manual_seed(seed)

    found = told(recipe.train_step(state, batch, CPU))["loss_discriminator"]

    of_a, of_b = state.modules[OF_A], state.modules[OF_B]
    fake_a, fake_b = (state.modules[name](images) for name, images in ((TO_A, batch.b), (TO_B, batch.a)))
    shown_a, shown_b = (
        torch.stack([older[name], one[0], *one[2:]]) for name, one in (("pool_a", fake_a), ("pool_b", fake_b))
    )
    wanted = 0.5 * (squares(of_a(batch.a), of_a(shown_a)) + squares(of_b(batch.b), of_b(shown_b)))
    assert found == pytest.approx(float(wanted.detach()), rel=1e-4)


def _first_two_turns_are_exchanges(seed: int) -> bool:
    """Tell whether of either domain's four images exactly the first two take the place of an older one."""
    torch.manual_seed(seed)
    turns = []
    for _ in range(2):
        turns.append((torch.rand(4) < 0.5).tolist())
        torch.randint(1, (4,))
    return turns == [[True, True, False, False]] * 2


def test_discogan_learns_from_games_features_and_both_ways_back(data: Data) -> None:
    recipe = make("discogan", data, optim={"lr": STILL, "generator_steps": 1}, loss={"rate": 0.3})
    state, batch = begun(recipe)

    found = told(recipe.train_step(state, batch, CPU))

    to_b, to_a, of_a, of_b = (state.modules[name] for name in (TO_B, TO_A, OF_A, OF_B))
    # Discriminators have pictures of their own.
    first, second = Batch(batch.a[0::2], batch.b[0::2]), Batch(batch.a[1::2], batch.b[1::2])
    against = 0.5 * (
        crossed(of_a(first.a)[0], of_a(to_a(first.b).detach())[0])
        + crossed(of_b(first.b)[0], of_b(to_b(first.a).detach())[0])
    )
    fake_b, fake_a = to_b(second.a), to_a(second.b)
    game, distance = torch.zeros(()), torch.zeros(())
    for judge, real, fake in ((of_a, second.a, fake_a), (of_b, second.b, fake_b)):
        logits, *drawn = judge(fake)
        game = game + softplus(-logits).mean()
        for ours, theirs in zip(drawn, judge(real)[1:], strict=True):
            distance = distance + (ours.mean(0) - theirs.detach().mean(0)).square().mean()
    cycle = (to_a(fake_b) - second.a).square().mean() + (to_b(fake_a) - second.b).square().mean()
    total = 0.7 * (0.1 * game + 0.9 * distance) + 0.3 * cycle
    wanted = {"loss": total, "loss_generator": game, "features": distance, "cycle": cycle}
    assert found == approx({**wanted, "loss_discriminator": against})
    assert_learned(total, to_b, to_a)
    assert_learned(against, of_a, of_b)


@pytest.mark.parametrize("conditional", [False, True])
def test_bicyclegan_learns_from_codes_of_both_kinds(conditional: bool, data: Data) -> None:
    recipe = make("bicyclegan", data, optim={"lr": STILL}, model={"conditional": conditional})
    state, batch = begun(recipe)
    torch.manual_seed(5)

    found = told(recipe.train_step(state, batch, CPU))

    def logits(name: str, a: Tensor, images: Tensor) -> tuple[Tensor, ...]:
        seen: tuple[Tensor, ...] = state.modules[name](torch.cat([a, images], 1) if conditional else images)
        return seen

    generator, encoder = state.modules[GENERATOR], state.modules[ENCODER]
    drawn, other = Batch(batch.a[0::2], batch.b[0::2]), Batch(batch.a[1::2], batch.b[1::2])
    torch.manual_seed(5)
    mean, log_variance = encoder(drawn.b)
    own = mean + torch.randn_like(mean) * log_variance.exp().sqrt()
    z = torch.randn(len(drawn.a), mean.shape[1])
    fakes = {OF_ENCODED: generator(drawn.a, own), OF_DRAWN: generator(drawn.a, z)}
    games = {
        name: torch.stack([0.5 * (one - 1).square().mean() for one in logits(name, drawn.a, fake)]).mean()
        for name, fake in fakes.items()
    }
    kl = 0.01 * 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()
    l1 = 10 * (fakes[OF_ENCODED] - drawn.b).abs().mean()
    code = 0.5 * (encoder(fakes[OF_DRAWN])[0] - z).abs().mean()
    taught = kl + games[OF_ENCODED] + l1
    total = taught + games[OF_DRAWN] + code
    against = torch.zeros(())
    for name, real in ((OF_ENCODED, drawn), (OF_DRAWN, other)):
        pairs = zip(logits(name, real.a, real.b), logits(name, drawn.a, fakes[name].detach()), strict=True)
        against = against + torch.stack([squares(*pair) for pair in pairs]).mean()
    wanted = {"kl": kl, "game_encoded": games[OF_ENCODED], "game_drawn": games[OF_DRAWN], "l1": l1, "code": code}
    assert found == approx({**wanted, "loss": total, "loss_discriminator": against})
    assert_learned(total, generator)
    assert_learned(taught, encoder)
    assert_learned(against, state.modules[OF_ENCODED], state.modules[OF_DRAWN])


@pytest.mark.parametrize("kind", ["centre", "random"])
def test_inpainting_learns_from_the_game_where_it_draws_and_from_the_distance(kind: str, inpaint: Any) -> None:
    recipe = inpaint(
        hole={"kind": kind, "overlap": 0},
        optim={"lr": STILL, "lr_discriminator": STILL},
        loss={"reconstruction": 0.9, "game": 0.3},
        data={"batch_size": 4},
    )
    state, batch = begun(recipe)

    found = told(recipe.train_step(state, batch, CPU))

    generator, judge = state.modules[GENERATOR], state.modules[DISCRIMINATOR]
    canvas, hidden = generator(batch.a), batch.a[:, 3:] > 0
    middle = slice(8, 24)
    drawn, real = fill(batch.a, canvas), batch.b
    if kind == "centre":
        drawn, real = canvas[:, :, middle, middle], batch.b[:, :, middle, middle]
    against, game = crossed(judge(real), judge(drawn.detach())), softplus(-judge(drawn)).mean()
    # Each picture counts alike, however much of it is hidden.
    distance = torch.stack(
        [(one - other)[:, where[0]].square().mean() for one, other, where in zip(canvas, batch.b, hidden, strict=True)]
    ).mean()
    total = 0.9 * distance + 0.3 * game
    wanted = {"loss": total, "loss_generator": game, "loss_discriminator": against, "distance": distance}
    assert found == approx(wanted)
    assert_learned(total, generator)
    assert_learned(against, judge)


def test_super_resolution_learns_from_pixels_features_and_the_game(srgan: Any) -> None:
    recipe = srgan(
        loss={"game": 0.3, "pixels": 0.2, "perceptual": 0.7},
        optim={"lr": STILL, "lr_game": STILL, "lr_discriminator": STILL},
        pretrain_steps=0,
        data={"image_size": 16, "batch_size": 4},
    )
    state, batch = begun(recipe)
    # Any network that never learns may compare; VGG-19 has a test of its own.
    state.modules[FEATURES] = nn.Conv2d(3, 5, 3).requires_grad_(False)
    state.tensors["has_features"] = torch.ones((), dtype=torch.bool)

    found = told(recipe.train_step(state, batch, CPU))

    generator, judge, features = (state.modules[name] for name in (GENERATOR, DISCRIMINATOR, FEATURES))
    fake = generator(batch.a)
    against = crossed(judge(batch.b), judge(fake.detach()))
    pixels = (fake - batch.b).abs().mean()
    parts = {
        "loss_game": 0.3 * softplus(-judge(fake)).mean(),
        "loss_pixels": 0.2 * pixels,
        "loss_perceptual": 0.7 * (features(fake) - features(batch.b)).abs().mean(),
    }
    total = torch.stack(list(parts.values())).sum()
    assert found == approx({"loss": total, "loss_discriminator": against, "l1": pixels, **parts})
    assert_learned(total, generator)
    assert_learned(against, judge)


def test_both_players_use_the_config_s_adam(data: Data) -> None:
    recipe = make("pix2pix", data, optim={"beta1": 0.4, "beta2": 0.9, "weight_decay": 0.02})

    for optimizer in started(recipe).optimizers.values():
        (group,) = optimizer.param_groups
        assert (group["betas"], group["weight_decay"]) == ((0.4, 0.9), 0.02)
