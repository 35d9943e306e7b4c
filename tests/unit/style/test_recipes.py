"""The recipes: where the frozen network lives, what it starts from, and how a picture goes from coarse to fine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import vgg16

from services.core.errors import DatasetInvalid
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders import datasets as build
from workers.engine import rng
from workers.families.base import Placement, Source, TrainState
from workers.families.config import Origin
from workers.families.style.config import FastConfig, GatysConfig
from workers.families.style.data import square
from workers.families.style.fast import Fast
from workers.families.style.gatys import Canvas, Gatys

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
SMALL: dict[str, Any] = {"content": ("relu2_1",), "style": ("relu1_1", "relu2_1"), "width": 0.25}
VGG16 = Origin("torchvision:VGG16_Weights.DEFAULT", "torchvision", "torchvision", {})


def gatys(pictures: Path, **sections: Any) -> tuple[Gatys, TrainState]:
    defaults = {"features": {"network": "vgg19", **SMALL}, "data": {"image_size": 32}}
    recipe = Gatys(GatysConfig.model_validate(defaults | sections), pictures)
    rng.seed_all(0)
    return recipe, recipe.build(CPU)


def fast(pictures: Path, **sections: Any) -> tuple[Fast, TrainState]:
    defaults = {
        "features": SMALL,
        "data": {"image_size": 32, "style_size": 32},
        "model": {"width": 4, "residual_blocks": 1},
    }
    recipe = Fast(FastConfig.model_validate(defaults | sections), pictures)
    rng.seed_all(0)
    return recipe, recipe.build(CPU)


def imported(directory: Path, files: dict[str, bytes]) -> Path:
    """Import pictures of two domains by their paths."""
    (directory / "canonical").mkdir()
    folder = build.write_files(directory / "folder", files)
    import_folder(folder, directory / "canonical", source_format=None, limits=ImportLimits(), family="domains")
    return directory / "canonical"


def step(recipe: Any, state: TrainState) -> dict[str, Tensor]:
    batch = recipe.to_device(recipe.train_batches().batch(state.step), CPU)
    scalars: dict[str, Tensor] = recipe.train_step(state, batch, CPU)
    state.step += 1
    return scalars


def test_the_frozen_network_is_in_the_state_once_never_learns_and_is_never_served(pictures: Path) -> None:
    recipe, state = fast(pictures, runtime={"ema": 0.9})
    before = {name: value.clone() for name, value in state.modules["features"].state_dict().items()}

    step(recipe, state)

    assert set(state.modules) == {"network", "features"}
    assert set(state.ema) == {"network"}
    assert all(torch.equal(value, before[name]) for name, value in state.modules["features"].state_dict().items())
    assert len(recipe.serving_module(state).state_dict()) == len(state.modules["network"].state_dict())


def test_given_weights_are_asked_of_the_network_that_judges_and_make_it_whole() -> None:
    config = FastConfig.preset("tiny").adopt(VGG16)

    assert (config.features.weights, config.features.width) == ("given", 1.0)
    with pytest.raises(ValueError, match=r"use torchvision:VGG19_Weights.DEFAULT, or set features.network"):
        GatysConfig().adopt(VGG16)


def test_given_weights_replace_random_ones_and_nothing_of_these_is_remembered(pictures: Path) -> None:
    torch.manual_seed(1)
    given = vgg16(weights=None).state_dict()
    recipe, state = fast(pictures, features={**SMALL, "width": 1.0})
    random = recipe.evaluate(state, CPU)
    digest = recipe.judge()

    recipe.load_source(state, Source(VGG16, given))

    assert torch.equal(state.modules["features"].state_dict()["layers.0.weight"], given["features.0.weight"])
    assert recipe.evaluate(state, CPU)["eval/loss"] != pytest.approx(random["eval/loss"], rel=0.01)
    assert recipe.judge().keys() == digest.keys() == {"vgg16"}
    assert recipe.judge() != digest


def test_random_weights_are_told_of_and_given_ones_are_not(pictures: Path) -> None:
    recipe, _ = fast(pictures)
    trained, _ = fast(pictures, features={**SMALL, "weights": "given"})

    (first, *_) = recipe.notices()

    assert "random weights" in first
    assert "torchvision:VGG16_Weights.DEFAULT" in first
    assert trained.notices() == []


def test_pictures_that_are_left_out_are_told_of(pictures: Path) -> None:
    recipe, _ = gatys(pictures, data={"image_size": 32, "batch_size": 1, "style_pictures": 3})

    told = recipe.notices()

    assert "3 content pictures are left out: data.batch_size says how many are redrawn" in told
    assert "1 style pictures are left out: data.style_pictures says how many are looked at" in told


def test_without_noise_the_start_is_the_content_picture_itself(pictures: Path) -> None:
    recipe, state = gatys(pictures)

    figures = recipe.evaluate(state, CPU)

    assert figures["eval/style_share"] == pytest.approx(1, abs=1e-5)
    assert figures["eval/content_error"] == pytest.approx(0, abs=1e-9)
    assert figures["eval/ssim"] == pytest.approx(1, abs=1e-5)
    assert figures["eval/content_contrast"] == pytest.approx(0, abs=1e-9)


def test_noise_alone_is_another_start_for_every_seed(pictures: Path) -> None:
    recipe, _ = gatys(pictures, image={"noise": 1.0})
    starts = []
    for seed in (1, 2):
        rng.seed_all(seed)
        canvas = recipe.new_network()
        starts.append(canvas.pictures[0].detach())

    assert not torch.equal(*starts)
    assert float(starts[0].std()) == pytest.approx(1, abs=0.05)


def test_pixels_stay_what_a_picture_can_show(pictures: Path) -> None:
    recipe, state = gatys(pictures, optim={"name": "adamw", "lr": 3.0, "weight_decay": 0.0})

    step(recipe, state)

    canvas = state.modules["network"]
    assert isinstance(canvas, Canvas)
    picture = canvas.pictures[0].detach()
    assert float(picture.min()) >= -0.485 / 0.229 - 1e-6
    assert float(picture.max()) <= (1 - 0.406) / 0.225 + 1e-6


def test_sizes_are_worked_through_from_coarse_to_fine_in_equal_turns(pictures: Path) -> None:
    recipe, _ = gatys(pictures, image={"scales": 3}, limits={"max_steps": 6})

    batches = recipe.train_batches()

    assert [batches.batch(number).stage for number in range(6)] == [0, 0, 1, 1, 2, 2]


def test_a_coarse_step_moves_neighbours_together_and_the_last_ones_move_each_pixel(pictures: Path) -> None:
    sections: dict[str, Any] = {"data": {"image_size": 128}, "limits": {"max_steps": 3}}
    roughness = {}
    for scales in (1, 3):
        recipe, state = gatys(pictures, image={"scales": scales}, **sections)
        canvas = state.modules["network"]
        assert isinstance(canvas, Canvas)
        before = canvas.pictures[0].detach().clone()
        scalars = step(recipe, state)
        assert all(value.isfinite() for value in scalars.values())
        gradient = canvas.pictures[0].grad
        assert gradient is not None
        roughness[scales] = float((gradient[..., 1:] - gradient[..., :-1]).abs().mean() / gradient.abs().mean())
        assert canvas.pictures[0].shape == before.shape

    assert roughness[3] < 0.5 * roughness[1]


def test_several_pictures_are_redrawn_each_by_itself(pictures: Path) -> None:
    recipe, state = gatys(pictures, data={"image_size": 32, "batch_size": 2})

    step(recipe, state)

    assert [one.name for one in recipe.sample(state, CPU)] == ["samples", "result-1", "result-2"]
    assert len(recipe.golden(state, CPU, 16).answers[0]["images"]) == 2


def test_what_is_served_is_the_picture_that_was_drawn_for_people(pictures: Path) -> None:
    recipe, state = gatys(pictures)
    step(recipe, state)
    canvas = state.modules["network"]
    assert isinstance(canvas, Canvas)

    (served,) = recipe.serving_module(state)(torch.zeros(1, 1))

    assert torch.equal(served[0].to(torch.uint8), canvas.pixels()[0])


def test_the_middle_of_a_picture_is_cut_to_a_square() -> None:
    image = torch.zeros(3, 10, 30, dtype=torch.uint8)
    image[..., 10:20] = 255

    assert torch.equal(square(image, 10), torch.full((3, 10, 10), 255, dtype=torch.uint8))


def test_a_batch_depends_on_the_step_alone(pictures: Path) -> None:
    recipe, _ = fast(pictures, augment={"flip": 0.5})
    one, other = recipe.train_batches(), recipe.train_batches()
    one.batch(0)

    assert torch.equal(one.batch(5).images, other.batch(5).images)
    assert not torch.equal(one.batch(5).images, one.batch(6).images)


def test_one_content_and_one_style_picture_are_all_that_an_optimisation_needs(tmp_path: Path) -> None:
    directory = imported(tmp_path, {"content/1.jpg": build.picture(1), "style/1.jpg": build.picture(2)})

    recipe, state = gatys(directory)
    step(recipe, state)

    assert [one.name for one in recipe.sample(state, CPU)] == ["samples", "result"]
    figures = recipe.evaluate(state, CPU)
    assert {"eval/loss", "eval/style_share", "eval/content_error", "eval/ssim", "eval/ssim_style"} == figures.keys()


def test_one_style_picture_and_many_contents_teach_a_network(tmp_path: Path) -> None:
    files = {f"content/{number}.jpg": build.picture(number) for number in range(5)} | {"style/1.jpg": build.picture(9)}

    recipe, state = fast(imported(tmp_path, files))
    step(recipe, state)

    assert "eval/style_share_held_out" not in recipe.evaluate(state, CPU)
    assert len(recipe.golden(state, CPU, 4).answers) == 1


@pytest.mark.parametrize("styles", [1, 4])
def test_a_network_is_refused_without_a_content_picture_to_judge_it_by(styles: int, tmp_path: Path) -> None:
    files = {f"style/{n}.jpg": build.picture(n) for n in range(styles)} | {"content/1.jpg": build.picture(9)}

    with pytest.raises(DatasetInvalid, match=r"no content picture is held out.*import two content pictures or more"):
        fast(imported(tmp_path, files))


def test_nothing_to_minimise_is_refused() -> None:
    with pytest.raises(ValueError, match="are all 0: give one of them a weight"):
        FastConfig.model_validate({"loss": {"content": 0, "style": 0, "tv": 0}})
