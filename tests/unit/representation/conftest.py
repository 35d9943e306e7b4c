"""Small networks with fresh weights of a fixed seed, in the form in which they are served."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from workers.families.base import Handler, Instance, InstanceInvalid, ServingSpec
from workers.families.representation.config import MaeConfig, VaeConfig
from workers.families.representation.mae_handler import MaeHandler
from workers.families.representation.mae_network import MaeNetwork, ServedMae
from workers.families.representation.vae import ServedVae, VaeNetwork
from workers.families.representation.vae_handler import Row, VaeHandler

LATENT = 6


@dataclass(frozen=True)
class Yard:
    """A served network, asked as a server asks it."""

    handler: Handler
    network: nn.Module

    def ask(self, *instances: Instance) -> list[Any]:
        return list(self.handler.predict(instances, self.network))

    def one(self, image: bytes | None = None, /, **wish: Any) -> Mapping[str, Any]:
        (answer,) = self.ask(Instance(image, wish, {}))
        assert not isinstance(answer, InstanceInvalid), answer
        return dict(answer)

    def refusal(self, image: bytes | None = None, /, **wish: Any) -> str:
        (answer,) = self.ask(Instance(image, wish, {}))
        assert isinstance(answer, InstanceInvalid), answer
        return str(answer)


def picture(seed: int = 0, size: tuple[int, int] = (24, 24)) -> bytes:
    """Return a PNG of smooth colours, another for each seed."""
    grid = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC).save(target, "PNG")
    return target.getvalue()


def lively(network: nn.Module) -> nn.Module:
    """Return a network whose answers differ, which those of fresh weights hardly do."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return network.eval()


def serve_vae(channels: Sequence[int] = ()) -> Yard:
    config = VaeConfig.model_validate(
        {
            "data": {"image_size": (8, 12), "channels": 3},
            "model": {"latent_size": LATENT, "widths": (16,), "channels": channels},
        }
    )
    torch.manual_seed(0)
    network = VaeNetwork(config.model, config.data)
    lively(network)
    shape = (3, 8, 12)
    spec = ServingSpec((Row.width(shape, LATENT),), {"image": list(shape), "latent_size": LATENT})
    return Yard(VaeHandler(spec), ServedVae(network, shape).eval())


def mae_config(**loss: Any) -> MaeConfig:
    tiny = MaeConfig.PRESETS["tiny"]
    data = {**tiny["data"], "image_size": (8, 12), "stored_size": 8, "channels": 3}
    return MaeConfig.model_validate({"data": data, "model": tiny["model"], "loss": {"norm_pix": False, **loss}})


def serve_mae(**loss: Any) -> Yard:
    config = mae_config(**loss)
    torch.manual_seed(0)
    network = MaeNetwork(config)
    lively(network)
    constants = {"patch": 2, "mask_ratio": config.loss.mask_ratio, "norm_pix": config.loss.norm_pix}
    return Yard(MaeHandler(ServingSpec((4, 8, 12), constants)), ServedMae(network).eval())


@pytest.fixture(scope="module")
def vae() -> Yard:
    return serve_vae()


@pytest.fixture(scope="module")
def mae() -> Yard:
    return serve_mae()
