"""The frozen network: torchvision's layers by the paper's names, its weights, and where it ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import vgg16, vgg19

from workers.families.base import SourceUnfit
from workers.families.style.config import Features
from workers.families.style.vgg import FeatureNetwork

IMAGE = torch.randn(1, 3, 48, 40, generator=torch.Generator().manual_seed(3))
WIDE = {"content": ("relu4_2",), "style": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")}


@pytest.mark.parametrize(
    ("network", "layer", "place"),
    [
        pytest.param("vgg16", "relu1_2", 3, id="vgg16 relu1_2"),
        pytest.param("vgg16", "relu2_2", 8, id="vgg16 relu2_2"),
        pytest.param("vgg16", "relu3_3", 15, id="vgg16 relu3_3"),
        pytest.param("vgg16", "relu4_3", 22, id="vgg16 relu4_3"),
        pytest.param("vgg19", "relu1_1", 1, id="vgg19 conv1_1 is layer 0"),
        pytest.param("vgg19", "relu2_1", 6, id="vgg19 conv2_1 is layer 5"),
        pytest.param("vgg19", "relu3_1", 11, id="vgg19 conv3_1 is layer 10"),
        pytest.param("vgg19", "relu4_1", 20, id="vgg19 conv4_1 is layer 19"),
        pytest.param("vgg19", "relu4_4", 26, id="vgg19 conv4_4 is layer 25"),
        pytest.param("vgg19", "relu5_1", 29, id="vgg19 conv5_1 is layer 28"),
    ],
)
def test_layers_are_torchvision_s_relus_by_the_paper_s_names(network: Any, layer: str, place: int) -> None:
    found = FeatureNetwork(Features(network=network, content=(layer,), style=(layer,)))

    assert found.places == {place: layer}
    assert len(found.layers) == place + 1


def test_with_given_weights_it_computes_what_torchvision_s_network_does() -> None:
    torch.manual_seed(0)
    whole = vgg19(weights=None).eval()
    network = FeatureNetwork(Features(network="vgg19", **WIDE))  # type: ignore[arg-type]

    network.load(whole.state_dict(), name="these")

    with torch.no_grad():
        found = network(IMAGE)
        for layer, place in {"relu1_1": 1, "relu4_2": 22, "relu5_1": 29}.items():
            torch.testing.assert_close(found[layer], whole.features[: place + 1](IMAGE))


def test_weights_of_the_convolutions_alone_are_taken_by_their_own_names() -> None:
    torch.manual_seed(0)
    whole = vgg16(weights=None)
    network = FeatureNetwork(Features())

    network.load(whole.features.state_dict(), name="these")

    assert torch.equal(network.layers[0].weight, whole.features[0].weight)


def test_weights_of_another_network_are_refused_by_name_and_shape() -> None:
    network = FeatureNetwork(Features(network="vgg19", **WIDE))  # type: ignore[arg-type]

    with pytest.raises(SourceUnfit, match="the weights of those do not fit this network"):
        network.load(vgg16(weights=None).state_dict(), name="those")


def test_random_weights_are_the_same_whatever_the_generators_say() -> None:
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(FeatureNetwork(Features(width=0.25)))

    assert networks[0].digest() == networks[1].digest()
    assert all(not parameter.requires_grad for parameter in networks[0].parameters())


def test_random_weights_keep_the_size_of_features_from_layer_to_layer() -> None:
    found = FeatureNetwork(Features(network="vgg19", **WIDE))(IMAGE)  # type: ignore[arg-type]

    # He et al. 2015: each ReLU halves the power that its convolution doubles; pooling by the largest adds some.
    assert all(0.3 < float(one.square().mean()) < 6 for one in found.values())


def test_pooling_by_averages_is_doubled() -> None:
    flat, layers = torch.ones(1, 4, 8, 8), FeatureNetwork(Features(pool="average")).layers

    pools = [layer for layer in layers if isinstance(layer, nn.AvgPool2d)]

    assert len(pools) == 3
    assert torch.equal(pools[0](flat), torch.full((1, 4, 4, 4), 2.0))


def test_a_replicated_border_leaves_no_frame_in_a_constant() -> None:
    flat = torch.full((1, 3, 32, 32), 0.7)
    only = {"content": ("relu1_1",), "style": ("relu1_1",)}

    framed, plain = (
        FeatureNetwork(Features(padding=padding, **only))(flat)["relu1_1"]  # type: ignore[arg-type]
        for padding in ("zeros", "replicate")
    )

    assert float(plain.std((2, 3)).max()) < 1e-6
    assert float(framed.std((2, 3)).max()) > 1e-3


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [
        pytest.param({"style": ("conv1_1",)}, "use names such as relu1_1", id="another word"),
        pytest.param({"style": ("relu3_4",)}, "stage 3 of vgg16 ends in relu3_3", id="beyond the stage"),
        pytest.param({"content": ("relu1_1", "relu1_1")}, "names a layer twice", id="twice"),
    ],
)
def test_layers_that_the_network_has_not_are_refused_with_a_remedy(fields: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        Features(**fields)
