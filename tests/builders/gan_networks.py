"""Tiny generators with fresh weights of a fixed seed, in the form in which they are served."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workers.families.base import ServingSpec
from workers.families.gan.config import CganConfig, DcganConfig, GanConfig, LapganConfig, StyleganConfig, VanillaConfig
from workers.families.gan.generators import POINT_SIZE, build_generator
from workers.families.gan.handler import GanHandler
from workers.families.gan.served import ServedGenerator, load_served, serving_spec

LATENT = 8
_CONV = {"latent_size": LATENT, "generator_channels": 4, "discriminator_channels": 4}
_GREY = {"image_size": [16, 16], "channels": 1}

DCGAN = DcganConfig.model_validate({"data": {"image_size": [16, 16]}, "model": _CONV})
CGAN = CganConfig.model_validate({"data": _GREY, "model": {**_CONV, "embedding": 3}})
LAPGAN = LapganConfig.model_validate(
    {"data": _GREY, "model": {"base_size": 8, "latent_size": LATENT, "base_channels": 4, "level_channels": 4}}
)
STYLEGAN = StyleganConfig.model_validate(
    {"data": _GREY, "model": {"latent_size": LATENT, "mapping_layers": 2, "channel_max": 8, "channel_base": 128}}
)
POINTS = VanillaConfig()
RECIPES: dict[str, GanConfig] = {
    "gan/dcgan": DCGAN,
    "gan/cgan": CGAN,
    "gan/lapgan": LAPGAN,
    "gan/stylegan2": STYLEGAN,
    "gan/vanilla": POINTS,
}


def serve(
    config: GanConfig, *, classes: Sequence[str] = (), seed: int = 0
) -> tuple[ServedGenerator, ServingSpec, GanHandler]:
    """Return network, spec and handler of a generator that draws more than grey."""
    torch.manual_seed(seed)
    generator = build_generator(config, len(classes))
    for parameter in generator.parameters():
        if parameter.ndim > 1 and not isinstance(config, StyleganConfig):
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    data = config.data
    output = (POINT_SIZE,) if data.source == "points" else (data.channels, *data.image_size)
    spec = serving_spec(generator, output=output, classes=classes)
    return load_served(generator, spec).eval(), spec, GanHandler(spec)
