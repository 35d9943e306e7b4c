from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from workers.engine import rng
from workers.families.answers import MAX_PIXELS, decoded
from workers.families.base import Instance, InstanceInvalid, Placement, ServingSpec, Source, SourceUnfit
from workers.families.config import Origin
from workers.families.translation.crops import CropBatches, WholePictures, at_least, laid
from workers.families.translation.srgan_config import Crops, SrganConfig
from workers.families.translation.srgan_handler import SrganHandler
from workers.families.translation.srgan_networks import SrDiscriminator, SrResnet, VggFeatures, enlarged
from workers.families.translation.tiles import by_tiles, shrunk

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
VGG = "torchvision:VGG19_Weights.IMAGENET1K_V1"
GAME: dict[str, Any] = {
    "loss": {"game": 0.1, "perceptual": 0.0},
    "pretrain_steps": 1,
    "data": {"image_size": 16, "batch_size": 2},
}


def encoded(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def trained(recipe: Any, steps: int) -> Any:
    rng.seed_all(1)
    state = recipe.build(CPU)
    batches = recipe.train_batches()
    scalars: list[dict[str, Tensor]] = []
    for step in range(steps):
        scalars.append(recipe.train_step(state, recipe.to_device(batches.batch(step), CPU), CPU))
        state.step += 1
    return state, scalars


# --- networks


def test_the_paper_s_generator_has_its_1549462_parameters() -> None:
    network = SrResnet(scale=4, width=64, blocks=16, has_norm=True, has_base=False)

    assert sum(value.numel() for value in network.parameters()) == 1_549_462
    assert network(torch.zeros(1, 3, 12, 10)).shape == (1, 3, 48, 40)


def test_the_paper_s_discriminator_has_eight_convolutions_and_two_dense_layers() -> None:
    network = SrDiscriminator(side=96, width=64, hidden=1024)
    convolutions = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)]

    assert [one.out_channels for one in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [one.stride[0] for one in convolutions] == [1, 2] * 4
    norms = [layer.num_features for layer in network.layers if isinstance(layer, nn.BatchNorm2d)]
    assert norms == [64, 128, 128, 256, 256, 512, 512]
    assert network(torch.zeros(2, 3, 96, 96)).shape == (2, 1)


def test_blocks_that_do_nothing_leave_the_maps_of_the_first_layer_as_they_are() -> None:
    network = SrResnet(scale=2, width=8, blocks=2, has_norm=False, has_base=False)
    for parameter in network.blocks.parameters():
        nn.init.zeros_(parameter)
    images = torch.rand(1, 3, 8, 8)

    with torch.no_grad():
        maps = network.entry(images)

        assert torch.equal(network.blocks[0](maps), maps)
        assert torch.equal(network(images), network.exit(maps))


def test_with_a_base_the_network_begins_near_plain_interpolation() -> None:
    torch.manual_seed(0)
    network = SrResnet(scale=2, width=16, blocks=3, has_norm=False, has_base=True)
    images = torch.rand(1, 3, 16, 16) * 2 - 1

    assert (network(images) - enlarged(images, 2)).abs().mean() < 0.1


def test_features_are_those_of_torchvision_before_the_last_relu_of_vgg19() -> None:
    from torchvision.models import vgg19
    from torchvision.transforms.functional import normalize

    from workers.families.images import MEAN, STD

    torch.manual_seed(0)
    original = vgg19(weights=None).eval()
    features = VggFeatures()
    features.load(original.state_dict(), name=VGG)
    images = torch.rand(1, 3, 32, 32)

    expected = normalize(images, list(MEAN), list(STD))
    for layer in list(original.features)[:35]:
        expected = layer(expected)
    assert isinstance(original.features[34], nn.Conv2d)
    assert torch.allclose(features(images * 2 - 1), expected, atol=1e-5)
    assert not any(value.requires_grad for value in features.parameters())


# --- tiles and crops


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (16, 16), (33, 50), (64, 3)])
@pytest.mark.parametrize("margin", [0, 3])
def test_tiles_put_together_are_the_whole_picture(size: tuple[int, int], margin: int) -> None:
    image = torch.rand(3, *size)

    def enlarge(tiles: Tensor) -> Tensor:
        assert tiles.shape[2:] == (16, 16)
        return tiles.repeat_interleave(2, 2).repeat_interleave(2, 3)

    whole = by_tiles(image, enlarge, tile=16, margin=margin, scale=2)

    assert torch.equal(whole, image.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_margins_hide_the_seams_of_a_network_that_sees_no_further() -> None:
    torch.manual_seed(0)
    network = SrResnet(scale=2, width=4, blocks=1, has_norm=False, has_base=False).eval()
    image = torch.rand(3, 40, 50)

    with torch.inference_mode():
        tiled = by_tiles(image, network, tile=48, margin=16, scale=2)
        whole = network(image[None])[0]

    inside = (slice(None), slice(32, -32), slice(32, -32))
    assert torch.allclose(tiled[inside], whole[inside], atol=1e-5)


def test_pictures_are_made_small_by_looking_at_every_pixel() -> None:
    # The bright column lies where plain interpolation never looks.
    stripes = torch.tensor([0, 0, 0, 255], dtype=torch.uint8).repeat(16).expand(1, 3, 64, 64)

    small = shrunk(stripes, 4)

    assert small.shape == (1, 3, 16, 16)
    assert (small[..., 2:-2].float() - 255 / 4).abs().max() <= 1


def test_a_picture_lies_in_eight_ways() -> None:
    picture = torch.arange(6).reshape(1, 2, 3)

    ways = {tuple(map(tuple, laid(picture, way)[0].tolist())) for way in range(8)}

    assert len(ways) == 8
    assert ((0, 1, 2), (3, 4, 5)) in ways


def test_pictures_smaller_than_a_crop_are_enlarged_in_their_shape() -> None:
    assert at_least(torch.zeros(3, 10, 30, dtype=torch.uint8), 20).shape == (3, 20, 60)
    assert at_least(torch.zeros(3, 20, 30, dtype=torch.uint8), 20).shape == (3, 20, 30)


def test_the_crops_of_a_step_are_the_same_whatever_came_before(srgan: Any) -> None:
    recipe = srgan()
    one, other = recipe.train_batches(), recipe.train_batches()
    for step in range(3):
        one.batch(step)

    again, fresh = one.batch(3), other.batch(3)

    assert torch.equal(again.a, fresh.a)
    assert torch.equal(again.b, fresh.b)
    assert not torch.equal(again.b, one.batch(4).b)


def test_pictures_beyond_the_budget_are_decoded_at_every_use(srgan: Any) -> None:
    recipe = srgan()
    records, reads = recipe._train, []

    class Counting:
        def __len__(self) -> int:
            return len(records)

        def image(self, index: int) -> Tensor:
            reads.append(index)
            return records.image(index)

    def use(cache_mib: int) -> list[int]:
        reads.clear()
        pictures = WholePictures(Counting(), least=16, cache_mib=cache_mib)  # type: ignore[arg-type]
        batches = CropBatches(pictures, Crops(image_size=16, batch_size=6, turn=False), scale=2, seed=0)
        batches.batch(0)
        batches.batch(1)
        return sorted(reads)

    assert use(1) == [0, 1, 2, 3, 4, 5]
    assert use(0) == sorted([*range(6), *range(6)])


# --- step


def test_before_the_game_only_pixels_count_and_after_it_both_players_move(srgan: Any) -> None:
    recipe = srgan(**GAME)
    rng.seed_all(1)
    fresh = {name: value.clone() for name, value in recipe.build(CPU).modules["discriminator"].state_dict().items()}
    before, (first,) = trained(recipe, 1)
    after, (_, second) = trained(recipe, 2)

    assert all(torch.equal(value, fresh[name]) for name, value in before.modules["discriminator"].state_dict().items())
    assert any(not torch.equal(value, fresh[name]) for name, value in after.modules["discriminator"].named_parameters())
    assert set(first) == {"train/loss", "train/l1"}
    assert float(first["train/loss"]) == float(first["train/l1"])
    parts = sum(float(second[f"train/loss_{name}"]) for name in ("game", "pixels"))
    assert float(second["train/loss"]) == pytest.approx(parts)


def test_the_generator_s_rate_is_another_one_in_the_game(srgan: Any) -> None:
    recipe = srgan(**GAME, optim={"lr": 1e-3, "lr_game": 1e-4}, schedule={"decay_from": 1.0})

    rates = [trained(recipe, steps)[0].optimizers["generator"].param_groups[0]["lr"] for steps in (1, 2)]

    assert rates == [pytest.approx(1e-3), pytest.approx(1e-4)]


def test_without_weights_of_vgg_the_run_says_what_it_leaves_out(srgan: Any) -> None:
    assert srgan().notices() == []
    (notice,) = srgan(loss={"game": 0.1, "perceptual": 1.0}).notices()

    assert "loss.perceptual is skipped" in notice
    assert VGG in notice


def test_a_job_that_starts_from_vgg_compares_its_features_and_keeps_them_as_they_are(srgan: Any) -> None:
    from torchvision.models import vgg19

    origin = Origin(VGG, "torchvision", "torchvision", {})
    sections = {**GAME, "loss": {"game": 0.1, "perceptual": 1.0}, "pretrain_steps": 0}
    config = srgan(**sections).config.adopt(origin)
    recipe = type(srgan())(config, srgan().dataset_dir)
    tensors = vgg19(weights=None).state_dict()
    rng.seed_all(1)
    state = recipe.build(CPU)
    batch = recipe.to_device(recipe.train_batches().batch(0), CPU)

    with pytest.raises(SourceUnfit, match="start it from torchvision's VGG-19"):
        recipe.train_step(state, batch, CPU)
    recipe.load_source(state, Source(origin, tensors))
    scalars = recipe.train_step(state, batch, CPU)

    assert recipe.notices() == []
    assert float(scalars["train/loss_perceptual"]) > 0
    kept = state.modules["features"].state_dict()
    assert all(torch.equal(value, tensors[name.replace("layers", "features", 1)]) for name, value in kept.items())


@pytest.mark.parametrize(("kind", "prefix"), [("model", ""), ("checkpoint", "generator.")])
def test_a_job_goes_on_from_a_model_of_its_own_shape_of_network(kind: Any, prefix: str, srgan: Any) -> None:
    recipe = srgan()
    source, _ = trained(recipe, 2)
    origin = Origin("sr/1", kind, "translation/srgan", recipe.config.model_dump(mode="json"))
    config = SrganConfig().adopt(origin)
    assert config.model.width == recipe.config.model.width
    assert config.model.discriminator_width == SrganConfig().model.discriminator_width
    state = recipe.build(CPU)

    served = recipe.serving_module(source).state_dict()
    recipe.load_source(state, Source(origin, {f"{prefix}{name}": value for name, value in served.items()}))

    assert all(torch.equal(value, served[name]) for name, value in state.modules["generator"].state_dict().items())


@pytest.mark.parametrize(
    ("origin", "loss", "reason"),
    [
        ("torchvision:VGG16_Weights.IMAGENET1K_V1", {}, "use torchvision:VGG19_Weights"),
        (VGG, {"game": 0.0}, "set both above 0"),
        (VGG, {"perceptual": 0.0}, "set both above 0"),
    ],
)
def test_weights_that_would_have_no_effect_are_refused(origin: str, loss: dict[str, float], reason: str) -> None:
    config = SrganConfig.model_validate({"loss": loss})

    with pytest.raises(ValueError, match=reason):
        config.adopt(Origin(origin, "torchvision", "torchvision", {}))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ({"data": {"image_size": 100}}, "must be a multiple of 16; use 96"),
        ({"data": {"image_size": 30}, "loss": {"game": 0.0}}, "must be a multiple of 4; use 32"),
        ({"eval": {"tile_size": 32, "margin": 14}}, "eval.margin leaves 4 pixels .* use 5"),
    ],
)
def test_a_config_that_cannot_be_built_names_its_field_and_what_to_use(override: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SrganConfig.model_validate(override)


# --- handler


def handler(scale: int = 4) -> SrganHandler:
    return SrganHandler(ServingSpec((3, 16, 16), {"scale": scale, "margin": 2}))


def ask(body: bytes, scale: int = 4, **params: Any) -> Any:
    (answer,) = handler(scale).predict([Instance(body, {}, params)], lambda tiles: enlarged(tiles, scale))
    return answer


def test_the_answer_is_the_whole_picture_larger() -> None:
    answer = ask(encoded(30, 21), compare=True)

    assert (answer["size"], answer["sent_size"], answer["scale"]) == ([84, 120], [21, 30], 4)
    picture, plain = (decoded(answer[name]) for name in ("image", "bicubic"))
    assert picture.shape == plain.shape == (84, 120, 3)
    assert (picture == plain).all()


def test_what_is_compared_with_is_plain_interpolation_whatever_the_network_draws() -> None:
    instance = Instance(encoded(30, 21), {}, {"compare": True})

    (answer,) = handler().predict([instance], lambda tiles: torch.zeros_like(enlarged(tiles, 4)))

    assert not isinstance(answer, InstanceInvalid)
    assert (decoded(answer["image"]) == 128).all()
    assert (decoded(answer["bicubic"]) == decoded(ask(encoded(30, 21))["image"])).all()


def test_a_picture_whose_answer_would_be_too_large_is_refused_with_what_fits() -> None:
    side = 400
    assert side * side * 16 > MAX_PIXELS
    answer = ask(encoded(side, side))

    assert isinstance(answer, InstanceInvalid)
    assert f"send one of at most {MAX_PIXELS // 16} pixels" in str(answer)
    assert f"send one of at most {MAX_PIXELS // 32} pixels" in str(ask(encoded(300, 300), compare=True))


def test_of_a_picture_that_is_too_large_the_size_is_told_at_which_it_would_do() -> None:
    found = re.search(r"all of it at (\d+)x(\d+)", str(ask(encoded(800, 400))))

    assert found
    width, height = map(int, found.groups())
    assert width == pytest.approx(2 * height, abs=2)
    assert 0.98 * MAX_PIXELS < 16 * width * height <= MAX_PIXELS


@pytest.mark.parametrize(
    ("params", "reason"), [({"compare": 1}, "compare must be true or false"), ({"size": "sent"}, "unknown parameter")]
)
def test_a_wish_that_makes_no_sense_is_refused(params: dict[str, Any], reason: str) -> None:
    answer = ask(encoded(8, 8), **params)

    assert isinstance(answer, InstanceInvalid)
    assert reason in str(answer)
