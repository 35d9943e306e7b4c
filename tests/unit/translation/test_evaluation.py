"""What figures compare: answers of networks that do one simple thing, beside what they should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tests.unit.translation.conftest import CPU, make, started
from tests.unit.translation.test_losses import lively
from workers.families.base import TrainState
from workers.families.images import to_tanh
from workers.families.latent import draw
from workers.families.translation import figures
from workers.families.translation.bicyclegan import ENCODER
from workers.families.translation.crops import CropBatches, WholePictures, middle
from workers.families.translation.cyclegan import TO_A, TO_B
from workers.families.translation.lab import from_lab, to_lab
from workers.families.translation.recipe import GENERATOR
from workers.families.translation.srgan import within_border
from workers.families.translation.srgan_config import Crops
from workers.families.translation.tiles import shrunk

Data = Callable[[str], Path]


class Does(nn.Module):
    """Stands for a generator."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(images)


def shift(by: float) -> Does:
    return Does(lambda images: images[:, :3] + by)


def state_of(**modules: nn.Module) -> TrainState:
    return TrainState(modules=modules, optimizers={})


def test_pix2pix_s_figures_are_of_the_answer_and_the_target(data: Data) -> None:
    recipe = make("pix2pix", data)
    pairs = to_tanh(recipe._held_out.gather(np.arange(2)))
    a, b = pairs[:, 0], pairs[:, 1]
    answer = a * 0.5

    found = recipe.evaluate(state_of(generator=Does(lambda images: images * 0.5)), CPU)

    assert found == {
        "eval/l1": pytest.approx(float((answer - b).abs().mean()), rel=1e-5),
        "eval/psnr": pytest.approx(float(figures.psnr(answer, b).mean()), rel=1e-5),
        "eval/ssim": pytest.approx(float(figures.ssim(answer, b).mean()), rel=1e-5),
    }


def test_figures_of_two_domains_are_of_the_way_that_they_are_named_after(data: Data) -> None:
    recipe = make("cyclegan", data)
    a, b = (to_tanh(domain.gather(np.arange(2))) for domain in recipe._held_out)

    found = recipe.evaluate(state_of(**{TO_B: shift(0.25), TO_A: shift(-0.75)}), CPU)

    assert [found[f"eval/identity_l1_{way}"] for way in ("ab", "ba")] == pytest.approx([0.25, 0.75])
    assert [found[f"eval/cycle_l1_{way}"] for way in ("ab", "ba")] == pytest.approx([0.5, 0.5])
    there, back = figures.sliced_distance(b, a + 0.25), figures.sliced_distance(a, b - 0.75)
    assert [found[f"eval/patches{way}"] for way in ("_ab", "_ba", "")] == pytest.approx(
        [there, back, (there + back) / 2]
    )


def test_both_ways_are_served_by_their_own_generator(data: Data) -> None:
    recipe = make("cyclegan", data)
    state = started(recipe)

    served = recipe.serving_module(state)

    assert (served.to_b, served.to_a) == (state.modules[TO_B], state.modules[TO_A])
    assert [domain.records.labels[domain.places].unique().tolist() for domain in recipe._held_out] == [[0], [1]]


def test_bicyclegan_s_figures_are_of_targets_own_codes_and_of_two_draws(data: Data) -> None:
    recipe = make("bicyclegan", data)
    state = started(recipe)
    for network in state.modules.values():
        lively(network)
        network.eval()
    pairs = to_tanh(recipe._held_out.gather(np.arange(2)))
    a, b = pairs[:, 0], pairs[:, 1]

    found = recipe.evaluate(state, CPU)

    generator, encoder = state.modules[GENERATOR], state.modules[ENCODER]
    one, other = (draw([turn, 2 + turn], recipe.config.model.latent_size) for turn in range(2))
    with torch.inference_mode():
        own = generator(a, encoder(b)[0])
        drawn, second = generator(a, one), generator(a, other)
        wanted = {
            "eval/l1": (own - b).abs().mean(),
            "eval/psnr": figures.psnr(own, b).mean(),
            "eval/ssim": figures.ssim(own, b).mean(),
            "eval/diversity": (drawn - second).abs().mean(),
            "eval/code_l1": (encoder(drawn)[0] - one).abs().mean(),
        }
    assert found == {name: pytest.approx(float(value), rel=1e-4) for name, value in wanted.items()}
    assert found["eval/diversity"] > 0.01


def test_colours_are_compared_with_colours_and_the_picture_with_the_picture(colorize: Any) -> None:
    recipe = colorize()
    target = to_tanh(recipe._pictures.gather(np.arange(4)))
    light, colour = to_lab(target)
    guess = torch.full_like(colour, 0.3)

    found = recipe.evaluate(
        state_of(generator=Does(lambda rows: torch.full_like(rows, 0.3).expand(-1, 2, -1, -1))), CPU
    )

    assert found["eval/ab_l1"] == pytest.approx(float((guess - colour).abs().mean()), rel=1e-4)
    assert found["eval/psnr"] == pytest.approx(float(figures.psnr(from_lab(light, guess), target).mean()), rel=1e-4)
    # The digits are grey: what is drawn has much more colour.
    assert found["eval/colourfulness"] > 5


def test_inpainting_is_scored_where_something_was_hidden_and_its_structure_beside_the_target(inpaint: Any) -> None:
    recipe = inpaint()
    target = to_tanh(recipe._held_out.gather(np.arange(4)))
    filled = target.clone()
    filled[:, :, 8:24, 8:24] = 0.5

    found = recipe.evaluate(state_of(generator=Does(lambda rows: torch.full_like(rows[:, :3], 0.5))), CPU)

    error = (filled - target)[:, :, 8:24, 8:24]
    assert found["eval/hole_mse"] == pytest.approx(float(error.square().mean()), rel=1e-4)
    assert found["eval/hole_l1"] == pytest.approx(float(error.abs().mean()), rel=1e-4)
    assert found["eval/ssim"] == pytest.approx(float(figures.ssim(filled, target).mean()), rel=1e-4)


def test_each_held_out_picture_has_a_hole_of_its_own_at_every_evaluation(inpaint: Any) -> None:
    recipe = inpaint(hole={"kind": "random", "overlap": 0})

    first, again = recipe._held(np.arange(4), CPU), recipe._held(np.arange(4), CPU)

    assert torch.equal(first.a, again.a)
    assert len({tuple((mask > 0).flatten().tolist()) for mask in first.a[:, 3]}) == 4


def test_what_serves_an_inpainter_keeps_what_was_seen(inpaint: Any) -> None:
    recipe = inpaint()
    rows = recipe._held(np.arange(1), CPU).a

    filled = recipe.serving_module(state_of(generator=Does(lambda rows: torch.full_like(rows[:, :3], 9.0))))(rows)

    is_hidden = rows[:, 3:].expand(-1, 3, -1, -1) > 0
    assert (filled[is_hidden] == 9).all()
    assert torch.equal(filled[~is_hidden], rows[:, :3][~is_hidden])


class Noise:
    """Stands for the pictures of a split: noise in the middle of the range, of sides that no scale divides."""

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = [torch.randint(60, 190, (3, *size), generator=generator).to(torch.uint8) for size in sizes]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Tensor:
        return self.images[index]


def scored(srgan: Any, change: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Return the figures of super-resolution by plain interpolation that is changed so."""
    recipe = srgan()
    recipe._held_out = WholePictures(Noise([(41, 49), (33, 64)]), least=16, cache_mib=1)  # type: ignore[arg-type]
    enlarge = Does(lambda tiles: change(interpolate(tiles, scale_factor=2, mode="bicubic")))
    found: dict[str, float] = recipe.evaluate(state_of(generator=enlarge), CPU)
    return found


def test_a_worse_picture_than_plain_interpolation_gains_less_than_nothing(srgan: Any) -> None:
    def spoilt(images: Tensor) -> Tensor:
        return images + 0.2

    plain, worse = scored(srgan, lambda images: images), scored(srgan, spoilt)

    assert plain["eval/gain"] == pytest.approx(0, abs=0.02)
    assert worse["eval/gain"] == pytest.approx(worse["eval/psnr"] - plain["eval/psnr"], abs=0.02)
    assert worse["eval/gain"] < -0.3
    assert worse["eval/least_gain"] < worse["eval/gain"]
    assert 10 < plain["eval/psnr"] < 30


def test_detail_is_that_of_the_answer_as_a_share_of_the_target_s(srgan: Any) -> None:
    assert scored(srgan, torch.zeros_like)["eval/detail"] == 0
    assert (
        scored(srgan, lambda images: 1.5 * images)["eval/detail"] > scored(srgan, lambda images: images)["eval/detail"]
    )


def test_an_error_in_blue_hardly_counts_in_the_lightness(srgan: Any) -> None:
    def of_channel(channel: int) -> float:
        shifts = 0.4 * torch.eye(3)[channel][:, None, None]
        return scored(srgan, lambda images: images + shifts)["eval/psnr_y"]

    red, green, blue = (of_channel(channel) for channel in range(3))

    assert blue > red > green


@pytest.mark.parametrize(
    ("size", "kept"), [((20, 24), (slice(2, 18), slice(2, 22))), ((8, 24), (slice(None), slice(None)))]
)
def test_a_border_is_cut_on_all_sides_where_more_is_left(size: tuple[int, int], kept: tuple[slice, slice]) -> None:
    image = torch.rand(3, *size)

    assert torch.equal(within_border(image, 2), image[:, kept[0], kept[1]])


def test_super_resolution_serves_and_scores_the_average_of_its_weights(srgan: Any) -> None:
    recipe = srgan(average=0.5)
    state = started(recipe)
    start = {name: value.clone() for name, value in state.modules[GENERATOR].named_parameters()}
    batch = recipe.to_device(recipe.train_batches().batch(0), CPU)
    state.step = 100

    recipe.train_step(state, batch, CPU)

    served = dict(recipe.serving_module(state).named_parameters())
    for name, value in state.modules[GENERATOR].named_parameters():
        assert not torch.equal(value, start[name])
        torch.testing.assert_close(served[name], (start[name] + value) / 2)


# --- crops


def test_crops_lie_anywhere_in_a_picture_and_are_made_small_as_they_lie(srgan: Any) -> None:
    picture = torch.stack(
        [torch.arange(20)[:, None].expand(20, 33), torch.arange(33).expand(20, 33), torch.zeros(20, 33)]
    )
    pictures = Noise([])
    pictures.images = [picture.to(torch.uint8)]
    whole = WholePictures(pictures, least=16, cache_mib=1)  # type: ignore[arg-type]

    def batches(*, turn: bool) -> CropBatches:
        return CropBatches(whole, Crops(image_size=16, batch_size=1, turn=turn), scale=2, seed=0)

    upright = [batches(turn=False).batch(step) for step in range(300)]
    turned = [batches(turn=True).batch(step) for step in range(60)]

    assert {int(one.b[0, 0, 0, 0]) for one in upright} == set(range(5))
    assert {int(one.b[0, 1, 0, 0]) for one in upright} == set(range(18))
    for one in upright:
        rows, columns = one.b[0, 0].int(), one.b[0, 1].int()
        assert (rows.diff(dim=0) == 1).all()
        assert (columns.diff(dim=1) == 1).all()
    for one in (*upright[:9], *turned):
        assert torch.equal(one.a, shrunk(one.b, 2))
    # Which way rows and columns of the picture run in the crop.
    ways = {str([one.b[0, :2].int().diff(dim=dim)[:, 0, 0].tolist() for dim in (-2, -1)]) for one in turned}
    assert len(ways) == 8


def test_the_middle_of_a_picture_is_in_the_middle() -> None:
    picture = torch.arange(10 * 30).reshape(1, 10, 30)

    assert torch.equal(middle(picture, 6), picture[:, 2:8, 12:18])
    assert torch.equal(middle(picture, 20), picture[:, :, 5:25])
