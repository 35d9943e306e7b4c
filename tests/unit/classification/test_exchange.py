"""MoEx through whole networks: whose maps are exchanged, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from services.core.errors import RequestInvalid
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from workers.families.base import Placement
from workers.families.classification.augment import Exchange, exchange_moments
from workers.families.classification.config import TrainConfig
from workers.families.classification.recipes import Train

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    (root / "canonical").mkdir()
    folder = write_digits(root / "folder", size=8, train=4, val=4, classes=2)
    import_folder(folder, root / "canonical", source_format=None, limits=ImportLimits())
    return root / "canonical"


def config_of(name: str, layer: str, source: str = "torchvision", **runtime: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "data": {"image_size": 32, "stored_size": 32, "batch_size": 4},
            "model": {"name": name, "source": source},
            "augment": {"moex": 1.0, "moex_layer": layer},
            "runtime": runtime,
        }
    )


@pytest.mark.parametrize(
    ("name", "source", "path"), [("resnet18", "torchvision", "body.maps.4"), ("resnet10t", "timm", "body.layer1")]
)
def test_the_named_layer_s_maps_are_exchanged(digits: Path, name: str, source: str, path: str) -> None:
    recipe = Train(config_of(name, "layer1", source), digits)
    network = recipe.build(CPU).modules["network"].eval()
    images, exchange = torch.rand(4, 3, 32, 32), Exchange(torch.tensor([1, 0, 3, 2]), 0.9)
    module = network.get_submodule(path)
    maps: list[torch.Tensor] = []

    with torch.no_grad():
        plain = network(images)
        with recipe._exchanging(network, exchange):
            # After the one of the exchange, so that it sees what the rest of the network does.
            hook = module.register_forward_hook(lambda _module, _inputs, out: maps.append(out))
            exchanged = network(images)
            hook.remove()
        hook = module.register_forward_hook(lambda _module, _inputs, out: maps.append(out))
        again = network(images)
        hook.remove()

    torch.testing.assert_close(maps[0], exchange_moments(maps[1], exchange.partner))
    assert not torch.allclose(plain, exchanged)
    assert torch.equal(plain, again)


@pytest.mark.parametrize(
    ("name", "layer", "text"),
    [("resnet18", "layer9", "has no module 'layer9'"), ("resnet18", "head", r"gives no feature maps \(N, C, H, W\)")],
)
def test_what_cannot_be_exchanged_is_refused_before_the_first_step(
    digits: Path, name: str, layer: str, text: str
) -> None:
    with pytest.raises(RequestInvalid, match=text):
        Train(config_of(name, layer), digits).build(CPU)


def test_a_compiled_network_is_refused_which_would_not_see_the_exchange() -> None:
    with pytest.raises(ValueError, match=r"runtime\.compile must be false with augment\.moex"):
        config_of("resnet18", "layer1", compile=True)
