"""The updates of a step, on drawn faces and on points."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from services.core.errors import DatasetInvalid, RequestInvalid
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from tests.builders.points import write_gaussian
from tests.builders.training import FrameLog, attempt
from workers.engine import rng
from workers.engine.frames import FrameKind
from workers.engine.run import package_checkpoint
from workers.families.base import Placement, TrainState
from workers.families.catalog import CATALOG
from workers.families.gan import game
from workers.families.gan.cgan import Cgan
from workers.families.gan.data import Batch
from workers.families.gan.dcgan import Dcgan
from workers.families.gan.draw import by_class
from workers.families.gan.lapgan import Lapgan
from workers.families.gan.recipe import GanRecipe
from workers.families.gan.stylegan2 import StyleGan2
from workers.families.gan.vanilla import Vanilla
from workers.families.images import from_tanh, to_tanh
from workers.families.shaped import to_shape

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
SMALL: dict[str, Any] = {
    "data": {"image_size": [8, 8], "channels": 1, "batch_size": 4},
    "eval": {"feature_epochs": 1, "num_images": 20, "num_samples": 4},
}


def imported(folder: Path, out: Path, **options: Any) -> Path:
    out.mkdir()
    import_folder(folder, out, source_format=None, limits=ImportLimits(), **options)
    return out


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("digits")
    return imported(write_digits(directory / "folder", size=8, train=12, val=8, classes=2), directory / "canonical")


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("points")
    return imported(write_gaussian(directory / "folder", train=64, val=64), directory / "canonical")


def make(kind: Callable[..., GanRecipe[Any]], where: Path, **sections: Any) -> GanRecipe[Any]:
    config_class = {Cgan: "CganConfig", Dcgan: "DcganConfig", Lapgan: "LapganConfig", StyleGan2: "StyleganConfig"}
    from workers.families.gan import config

    preset = getattr(config, config_class[kind]).preset("tiny").model_dump(mode="json")  # type: ignore[index]
    for part in (SMALL, sections):
        for name, values in part.items():
            preset[name] |= values
    return kind(getattr(config, config_class[kind]).model_validate(preset), where)  # type: ignore[index]


def begin(recipe: GanRecipe[Any]) -> tuple[TrainState, Batch]:
    rng.seed_all(0)
    state = recipe.build(CPU)
    return state, recipe.to_device(recipe.train_batches().batch(0), CPU)


def copied(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def test_the_generator_s_update_makes_no_gradient_in_the_discriminator(digits: Path) -> None:
    recipe = make(Dcgan, digits)
    state, batch = begin(recipe)
    recipe.train_step(state, batch, CPU)
    of_its_own_step = {n: p.grad for n, p in state.modules["discriminator"].named_parameters() if p.grad is not None}
    kept = {name: gradient.clone() for name, gradient in of_its_own_step.items()}

    recipe.teach_generator(_game(recipe, state), state, batch)

    now = {name: parameter.grad for name, parameter in state.modules["discriminator"].named_parameters()}
    assert kept
    assert all(torch.equal(kept[name], now[name]) for name in kept)  # type: ignore[arg-type]
    assert all(parameter.requires_grad for parameter in state.modules["discriminator"].parameters())


def test_real_and_generated_samples_pass_batch_normalisation_apart(digits: Path) -> None:
    recipe = make(Dcgan, digits, data={"image_size": [16, 16]})
    state, batch = begin(recipe)
    sizes: list[int] = []
    state.modules["discriminator"].register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))

    recipe.train_step(state, batch, CPU)

    assert sizes == [4, 4, 4]


def test_k_updates_of_the_discriminator_see_k_times_as_many_real_samples(digits: Path) -> None:
    recipe = make(Dcgan, digits, optim={"discriminator_steps": 3})
    state, batch = begin(recipe)
    seen: list[torch.Tensor] = []
    state.modules["discriminator"].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))

    recipe.train_step(state, batch, CPU)

    assert len(batch.samples) == recipe.train_batches().batch_size == 12
    # real, generated for each update, then generated for the generator's
    assert len(seen) == 7
    for update, samples in enumerate(seen[0:6:2]):
        assert torch.equal(samples, batch.samples[update::3])


def test_an_update_of_the_discriminator_sees_the_same_samples_in_one_process_and_in_two() -> None:
    whole = Batch(torch.arange(12), torch.arange(12))
    halves = [Batch(whole.samples[part], whole.labels[part]) for part in (slice(6), slice(6, 12))]  # type: ignore[index]

    for alone, *shared in zip(whole.parts(3), *(half.parts(3) for half in halves), strict=True):
        assert torch.equal(alone.samples, torch.cat([part.samples for part in shared]))
        assert alone.labels is not None
        assert torch.equal(alone.labels, alone.samples)


def test_the_average_follows_fast_at_first_and_slowly_later(digits: Path) -> None:
    recipe = make(Dcgan, digits, average={"decay": 0.9})
    state, _ = begin(recipe)
    average, live = state.ema["generator"], state.modules["generator"]
    nn.init.zeros_(next(average.parameters()))
    nn.init.ones_(next(live.parameters()))

    recipe.follow(state)
    at_start = float(next(average.parameters()).flatten()[0])
    state.step = 10_000
    nn.init.zeros_(next(average.parameters()))
    recipe.follow(state)

    assert at_start == pytest.approx(0.9)
    assert float(next(average.parameters()).flatten()[0]) == pytest.approx(0.1, abs=1e-3)


def test_what_is_served_is_the_average_if_there_is_one(digits: Path) -> None:
    averaged, plain = (make(Dcgan, digits, average={"decay": decay}) for decay in (0.9, 0.0))

    (with_average, _), (without, _) = begin(averaged), begin(plain)

    assert averaged.served_generator(with_average) is with_average.ema["generator"]
    assert plain.served_generator(without) is without.modules["generator"]
    assert without.ema == {}


def test_r1_has_an_update_of_its_own_every_few_steps(digits: Path) -> None:
    recipe = make(Dcgan, digits, loss={"r1_gamma": 1.0, "r1_every": 2}, data={"image_size": [16, 16]})
    state, batch = begin(recipe)

    named = []
    for _ in range(3):
        named.append("train/r1" in recipe.train_step(state, batch, CPU))
        state.step += 1

    assert named == [True, False, True]
    (group,) = state.optimizers["discriminator"].param_groups
    assert not any(isinstance(part, nn.BatchNorm2d) for part in state.modules["discriminator"].modules())
    assert group["lr_factor"] == pytest.approx(2 / 3)
    assert group["betas"] == (pytest.approx(0.5 ** (2 / 3)), pytest.approx(0.999 ** (2 / 3)))


@pytest.mark.parametrize("name", ["minimax", "lsgan", "hinge", "wgan_gp"])
def test_every_loss_trains_with_augmentation(name: str, digits: Path) -> None:
    recipe = make(Cgan, digits, loss={"name": name}, augment={"colour": True, "translation": 0.125, "cutout": 0.5})
    state, batch = begin(recipe)
    before = copied(state.modules["generator"])

    scalars = recipe.train_step(state, batch, CPU)

    assert all(bool(value.isfinite()) for value in scalars.values())
    assert any(not torch.equal(value, before[key]) for key, value in state.modules["generator"].state_dict().items())
    has_norm = any(
        isinstance(part, nn.BatchNorm2d)
        for part in make(Dcgan, digits, loss={"name": name}, data={"image_size": [16, 16]})
        .new_discriminator()
        .modules()
    )
    assert has_norm == (name != "wgan_gp")


def test_the_penalty_on_gradients_is_on_what_the_discriminator_sees(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make(Dcgan, digits, loss={"name": "wgan_gp"}, augment={"translation": 0.25})
    state, batch = begin(recipe)
    seen: list[torch.Tensor] = []
    judged: list[torch.Tensor] = []
    state.modules["discriminator"].register_forward_hook(lambda _m, inputs, _o: judged.append(inputs[0]))
    monkeypatch.setattr(
        game, "gradient_penalty", lambda _judge, real, fake: seen.extend((real, fake)) or real.sum() * 0
    )

    recipe.train_step(state, batch, CPU)

    assert torch.equal(seen[0], judged[0])
    assert torch.equal(seen[1], judged[1])
    assert not torch.equal(seen[0], batch.samples)


def test_a_projection_discriminator_tells_one_image_s_classes_apart(digits: Path) -> None:
    recipe = make(Cgan, digits, model={"condition": "projection"})
    state, batch = begin(recipe)
    judge = state.modules["discriminator"].eval()

    zero, one = (judge(batch.samples, torch.full((4,), label)) for label in (0, 1))

    assert not torch.equal(zero, one)


def test_the_levels_of_a_pyramid_train_apart(digits: Path) -> None:
    recipe = make(Lapgan, digits, data={"image_size": [16, 16]})
    state, batch = begin(recipe)
    seen: dict[str, torch.Tensor] = {}
    for name in ("discriminator_0", "discriminator_1"):
        state.modules[name].register_forward_pre_hook(partial(_see_first, seen, name))

    recipe.train_step(state, batch, CPU)

    coarse = nn.functional.avg_pool2d(batch.samples, 2)
    blurred = nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(seen["discriminator_0"], coarse)
    assert torch.equal(seen["discriminator_1"], torch.cat([batch.samples, blurred], 1))


def test_pairs_of_a_pyramid_cannot_be_changed_one_without_the_other(digits: Path) -> None:
    with pytest.raises(ValidationError, match="compare an image with its blurred form"):
        make(Lapgan, digits, augment={"translation": 0.125})


@pytest.mark.parametrize("kind", [Dcgan, Lapgan, Cgan])
def test_what_a_step_calls_is_compiled(kind: type[GanRecipe[Any]], digits: Path) -> None:
    recipe = make(kind, digits, data={"image_size": [16, 16]})
    state, batch = begin(recipe)
    compiled = recipe.compiled_parts(state)
    called: set[int] = set()
    for network in compiled:
        network.register_forward_hook(lambda module, _i, _o: called.add(id(module)))

    recipe.train_step(state, batch, CPU)

    assert called == {id(network) for network in compiled}
    inside = {id(part) for network in compiled for part in network.parameters()}
    assert inside == {id(part) for network in state.modules.values() for part in network.parameters()}


def test_the_mean_of_path_lengths_and_of_styles_is_kept_with_the_state(digits: Path) -> None:
    recipe = make(StyleGan2, digits)
    state, batch = begin(recipe)

    scalars = recipe.train_step(state, batch, CPU)

    assert float(state.tensors["path_mean"]) == pytest.approx(0.01 * float(scalars["train/path_length"]), rel=1e-4)
    assert float(state.modules["generator"].get_buffer("mean_w").abs().sum()) > 0
    assert torch.equal(state.ema["generator"].get_buffer("mean_w"), state.modules["generator"].get_buffer("mean_w"))


def test_about_nine_images_in_ten_get_their_styles_from_two_latents(digits: Path) -> None:
    recipe = make(StyleGan2, digits, loss={"mixing": 0.9})
    assert isinstance(recipe, StyleGan2)
    state, _ = begin(recipe)

    ws = recipe._mixed(state.modules["generator"], 2000)  # type: ignore[arg-type]

    is_mixed = (ws != ws[:, :1]).any(2).any(1)
    assert float(is_mixed.double().mean()) == pytest.approx(0.9, abs=0.03)
    assert torch.equal(ws[:, 0], ws[:, 0])


def test_a_collapse_is_told_with_a_remedy(digits: Path) -> None:
    recipe = make(Dcgan, digits)

    (text,) = recipe.warnings({"eval/diversity@small": 0.1})

    assert "10 % as diverse" in text
    assert "optim.lr_discriminator" in text
    assert recipe.warnings({"eval/diversity@small": 0.9}) == []
    assert recipe.warnings({}) == []


@pytest.mark.parametrize(
    ("scalar", "label"),
    [
        pytest.param("train/loss", "train/loss (discriminator)", id="the loss that every recipe has"),
        pytest.param("train/loss_1", "train/loss_1 (discriminator)", id="of a level of a pyramid"),
        pytest.param("train/loss_generator", "train/loss_generator", id="says itself whose it is"),
        pytest.param("train/loss_generator_1", "train/loss_generator_1", id="says itself whose it is, at a level"),
        pytest.param("eval/fid@small", "eval/fid@small", id="no loss"),
    ],
)
def test_a_curve_says_whose_loss_it_is(digits: Path, scalar: str, label: str) -> None:
    assert make(Dcgan, digits).curve_label(scalar) == label


def test_samples_of_a_conditional_generator_stand_under_their_classes(digits: Path) -> None:
    recipe = make(Cgan, digits, eval={"num_samples": 4, "batch_size": 3})
    state = recipe.build(CPU)
    placed = []
    with torch.inference_mode():
        for images, labels in recipe.drawn(recipe.served_generator(state).eval(), CPU, count=4, seed=7):
            assert labels is not None
            placed.append((images, labels))
    images, labels = (torch.cat(each) for each in zip(*placed, strict=True))

    samples = recipe.sample(state, CPU)[0]

    assert labels.tolist() == [0, 1, 0, 0]
    assert samples.png == by_class(images, labels, recipe.classes)


def test_a_generator_of_one_picture_scores_worse_than_one_that_copies(digits: Path) -> None:
    recipe = make(Dcgan, digits, eval={"feature_epochs": 60})
    scorer = recipe.scorer(CPU.device)
    real = torch.cat(list(recipe._held_out.batches(8, limit=8)))

    one = scorer.score(iter([(real[:1].expand(8, -1, -1, -1), None)])).figures
    same = scorer.score(iter([(real, None)])).figures

    assert same["eval/fid@small"] < 1 < one["eval/fid@small"]
    assert (same["eval/coverage@small"], same["eval/classes"]) == (1.0, 2.0)
    assert (one["eval/diversity@small"], one["eval/classes"]) == (0.0, 1.0)


def test_the_feature_network_is_the_same_for_every_seed_and_moves_no_generator(digits: Path) -> None:
    nets = []
    for seed in (0, 1):
        recipe = make(Dcgan, digits, runtime={"seed": seed})
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        nets.append(recipe.scorer(CPU.device).net)
        assert torch.equal(torch.get_rng_state(), before)

    assert nets[0].digest == nets[1].digest


def test_figures_come_with_the_digest_of_their_feature_network(digits: Path, tmp_path: Path) -> None:
    recipe = make(Dcgan, digits, limits={"max_steps": 2, "evaluate_every_steps": 1}, average={"decay": 0.0})
    assert recipe.judge() == {}
    digest = recipe.scorer(CPU.device).net.digest
    assert recipe.judge() == {"small": digest}
    config = recipe.config.model_dump(mode="json")

    trained = attempt(tmp_path, config, recipe="gan/dcgan", catalog=CATALOG, dataset_dir=digits)
    plan = {"recipe": "gan/dcgan", "config": config, "dataset_dir": digits, "bundle_dir": tmp_path / "bundle"}
    log = FrameLog()
    package_checkpoint({**plan, "checkpoint_dir": trained.checkpoint_dir(2)}, log.writer)
    log.close()

    assert trained.error is None
    told = [frame["text"] for frame in trained.log.of(FrameKind.LOG) if "judged by" in frame["text"]]
    assert told == [f"figures are judged by small {digest}: only those of the same digest can be compared"]
    for bundle in (Path(trained.final["bundle_dir"]), tmp_path / "bundle"):
        assert json.loads((bundle / "bundle.json").read_bytes())["judge"] == {"small": digest}


def test_without_labels_the_feature_network_learns_turns(tmp_path: Path) -> None:
    labelled, flat = write_digits(tmp_path / "labelled", size=8, train=12, val=8, classes=2), tmp_path / "flat"
    for path in labelled.glob("*/*/*.png"):
        target = flat / path.parts[-3] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    recipe = make(Dcgan, imported(flat, tmp_path / "canonical", family="images"))

    net = recipe.scorer(CPU.device).net

    assert recipe._train.records.meta.classes == ()
    assert net.head is None


def test_weights_that_cannot_be_had_are_refused_by_field(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr("workers.families.gan.features.get_model", unreachable)
    recipe = make(Dcgan, digits, eval={"feature_net": "resnet18"})

    assert recipe.metric == "eval/fid@resnet18"
    with pytest.raises(RequestInvalid) as caught:
        recipe.scorer(CPU.device)
    assert caught.value.violations[0].field == "config.eval.feature_net"


def test_points_of_another_dimension_are_refused(tmp_path: Path) -> None:
    from workers.families.gan.config import VanillaConfig

    folder = tmp_path / "folder"
    folder.mkdir()
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("x,y,z\n1,2,3\n4,5,6\n")

    with pytest.raises(DatasetInvalid, match="3 columns"):
        Vanilla(VanillaConfig(), imported(folder, tmp_path / "canonical"))


def test_a_gan_of_points_tells_how_far_its_moments_are(points: Path) -> None:
    from workers.families.gan.config import VanillaConfig

    recipe = Vanilla(VanillaConfig(), points)
    state, batch = begin(recipe)

    recipe.train_step(state, batch, CPU)
    figures = recipe.evaluate(state, CPU)

    assert batch.samples.shape == (64, 2)
    assert recipe.metric in figures
    assert recipe.serving_spec().constants["output"] == [2]


@pytest.mark.parametrize(
    ("source", "image_size", "kept"),
    [
        pytest.param((20, 10), (4, 4), (slice(5, 15), slice(0, 10)), id="the middle of a tall image"),
        pytest.param((10, 40), (4, 8), (slice(0, 10), slice(10, 30)), id="the middle of a wide one, twice as wide"),
    ],
)
def test_images_are_cut_to_their_shape(
    source: tuple[int, int], image_size: tuple[int, int], kept: tuple[slice, slice]
) -> None:
    from workers.families.gan.config import Data

    image = torch.zeros(3, *source, dtype=torch.uint8)
    image[:, kept[0], kept[1]] = 200

    found = to_shape(image, Data(image_size=image_size))

    assert found.shape == (3, *image_size)
    assert torch.equal(found, torch.full_like(found, 200))


def test_pixels_survive_the_range_of_tanh() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)

    assert torch.equal(from_tanh(to_tanh(pixels)), pixels)


def _see_first(seen: dict[str, torch.Tensor], name: str, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    seen.setdefault(name, inputs[0])


def _game(recipe: GanRecipe[Any], state: TrainState) -> Any:
    from workers.families.gan.game import Game

    return Game.of(state, recipe.config, CPU)
