from __future__ import annotations

import pytest
import torch
from torch import nn

from workers.engine.memory import static_estimate_bytes
from workers.families.base import TrainState
from workers.families.gan.config import (
    CelebaConvConfig,
    CelebaFcConfig,
    CganConfig,
    DcganConfig,
    GanConfig,
    LapganConfig,
    StyleganConfig,
    VanillaConfig,
    WideModel,
)
from workers.families.gan.discriminators import ConvDiscriminator, WideDiscriminator, fc_discriminator
from workers.families.gan.game import build_adam
from workers.families.gan.generators import LapGenerator, build_generator, enlarge, lap_sizes

CLASSES = 3
IMAGES: list[tuple[GanConfig, tuple[int, ...]]] = [
    (VanillaConfig.preset("images"), (1, 28, 28)),
    (CganConfig.preset("tiny"), (1, 16, 16)),
    (DcganConfig.preset("tiny"), (3, 32, 32)),
    (LapganConfig.preset("tiny"), (1, 16, 16)),
    (StyleganConfig.preset("tiny"), (1, 16, 16)),
    (CelebaFcConfig.preset("tiny"), (3, 24, 20)),
    (CelebaConvConfig.preset("tiny"), (3, 56, 56)),
]


def size_of(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(("config", "shape"), IMAGES, ids=[type(config).__name__ for config, _ in IMAGES])
def test_every_generator_fills_its_shape_within_the_range_of_tanh(config: GanConfig, shape: tuple[int, ...]) -> None:
    is_conditional = isinstance(config, CganConfig)
    generator = build_generator(config, CLASSES if is_conditional else 0).eval()
    z = torch.randn(2, generator.latent_size)

    images = generator(z, torch.tensor([0, 2]) if is_conditional else None)

    assert images.shape == (2, *shape)
    assert float(images.detach().abs().max()) <= 1
    assert set(generator.hidden_layers()) <= {name for name, _ in generator.named_modules()}


def test_the_first_gan_s_generator_of_points_is_linear() -> None:
    generator = build_generator(VanillaConfig())
    one, other = torch.randn(2, 1, 2)

    middle = generator((one + other) / 2)

    assert torch.allclose(middle, (generator(one) + generator(other)) / 2, atol=1e-6)
    assert size_of(generator) == 6


def test_dcgan_has_the_parameters_of_the_reference_at_64_pixels() -> None:
    generator = build_generator(DcganConfig())
    discriminator = ConvDiscriminator(size=64, channels=3, width=64)

    assert (size_of(generator), size_of(discriminator)) == (3_576_704, 2_765_568)


def test_the_lesson_s_fully_connected_gan_is_estimated_within_a_percent_of_what_it_took() -> None:
    config = CelebaFcConfig()
    generator = build_generator(config)
    discriminator = fc_discriminator(config.model, (3, *config.data.image_size))

    found = static_estimate_bytes(_state(config, generator, discriminator))

    assert size_of(generator, discriminator) == 46_712_513
    assert found == 46_712_513 * 16
    assert abs(found / 1024 / 733_992 - 1) < 0.01


def test_the_lesson_s_convolutional_gan_takes_a_fifth_of_that() -> None:
    config = CelebaConvConfig()
    generator = build_generator(config)
    discriminator = WideDiscriminator(WideModel(), image_size=config.data.image_size, channels=3)

    found = static_estimate_bytes(_state(config, generator, discriminator))

    assert found / 2**30 == pytest.approx(0.1285, abs=5e-4)


def test_a_conditional_generator_draws_another_image_for_another_class() -> None:
    generator = build_generator(CganConfig.preset("tiny"), CLASSES).eval()
    z = torch.randn(1, generator.latent_size)

    assert not torch.equal(generator(z, torch.tensor([0])), generator(z, torch.tensor([1])))
    with pytest.raises(ValueError, match="needs labels"):
        generator(z)


def test_lapgan_adds_its_detail_to_the_enlarged_image_below() -> None:
    config = LapganConfig.preset("tiny")
    generator = build_generator(config).eval()
    assert isinstance(generator, LapGenerator)
    z = torch.randn(2, generator.latent_size)

    coarse, fine = generator.stages(z)
    for level in generator.levels:
        nn.init.zeros_(level.last.weight)
        nn.init.zeros_(level.last.bias)

    assert lap_sizes(config) == [8, 16]
    assert not torch.allclose(fine, enlarge(coarse))
    assert torch.allclose(generator(z), enlarge(coarse), atol=1e-6)


def test_each_plane_of_lapgan_s_latent_moves_its_own_level_only() -> None:
    generator = build_generator(LapganConfig.preset("tiny")).eval()
    assert isinstance(generator, LapGenerator)
    z = torch.randn(1, generator.latent_size)
    other = z.clone()
    other[:, generator.base_latent :] = torch.randn(1, generator.latent_size - generator.base_latent)

    (coarse, fine), (same, changed) = generator.stages(z), generator.stages(other)

    assert torch.equal(coarse, same)
    assert not torch.equal(fine, changed)


@pytest.mark.parametrize(
    ("config", "image_size"),
    [(DcganConfig, [48, 48]), (DcganConfig, [32, 64]), (StyleganConfig, [20, 20]), (CelebaConvConfig, [48, 64])],
)
def test_sides_that_no_stack_of_strides_makes_are_refused(config: type[GanConfig], image_size: list[int]) -> None:
    with pytest.raises(ValueError, match=r"data\.image_size"):
        config.model_validate({"data": {"image_size": image_size}})


def _state(config: GanConfig, generator: nn.Module, discriminator: nn.Module) -> TrainState:
    modules = {"generator": generator, "discriminator": discriminator}
    return TrainState(modules, {name: build_adam(one.parameters(), config, lr=1e-4) for name, one in modules.items()})
