"""FCN starts from torchvision's VGG-16 and from the original weights by the names of their port."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vgg import cfgs, make_layers

from tests.unit.segmentation.conftest import built
from workers.families.base import Source, SourceUnfit
from workers.families.config import Origin
from workers.families.images import MEAN, STD
from workers.families.segmentation.config import FcnConfig
from workers.families.segmentation.fcn import FcnNetwork

_ORIGINAL = {
    "stages.0.0": "conv1_1",
    "stages.0.2": "conv1_2",
    "stages.1.0": "conv2_1",
    "stages.2.0": "conv3_1",
    "stages.3.0": "conv4_1",
    "stages.4.0": "conv5_1",
    "hidden.0": "fc6",
    "hidden.3": "fc7",
    "score": "score_fr",
    "skips.0": "score_pool4",
    "skips.1": "score_pool3",
    "doubles.0": "upscore2",
    "doubles.1": "upscore_pool4",
    "last": "upscore8",
}
_SMALL = {"body": "small", "stages": [[8, 2], [8, 1], [8, 1], [8, 1], [8, 1]], "hidden": 8, "style": "caffe"}
BLUE_GREEN_RED = torch.tensor([104.00698793, 116.66876762, 122.67891434])


def published(tensors: dict[str, Tensor]) -> Source:
    return Source(Origin("torchvision:VGG16_Weights.DEFAULT", "torchvision", "torchvision", {}), tensors)


def uploaded(tensors: dict[str, Tensor]) -> Source:
    return Source(Origin("projects/p/datasets/fcn8s", "weights", "weights", {}), tensors)


def config_of(**model: object) -> FcnConfig:
    return FcnConfig.model_validate({"data": {"image_size": 64, "batch_size": 2}, "model": model})


def network_of(scenes: Path, config: FcnConfig, source: Source) -> FcnNetwork:
    recipe, state = built(scenes, config)
    recipe.load_source(state, source)
    network = state.modules["network"].eval()
    assert isinstance(network, FcnNetwork)
    return network


def test_vgg_16_becomes_the_body_and_its_linear_layers_the_hidden_ones(scenes: Path) -> None:
    torch.manual_seed(0)
    features = make_layers(cfgs["D"])
    first, second = nn.Linear(512 * 7 * 7, 8), nn.Linear(8, 8)
    classifier = {"classifier.0": first, "classifier.3": second, "classifier.6": nn.Linear(8, 5)}
    tensors = {f"features.{name}": value for name, value in features.state_dict().items()}
    for name, layer in classifier.items():
        tensors |= {f"{name}.{kind}": value for kind, value in layer.state_dict().items()}

    network = network_of(scenes, config_of(hidden=8), published(tensors))

    images, maps = torch.rand(1, 3, 64, 64), torch.rand(1, 512, 7, 7)
    with torch.no_grad():
        found = images
        for stage in network.stages:
            found = stage(found)
        torch.testing.assert_close(found, features(images))
        hidden = second(functional.relu(first(maps.flatten(1)))).relu()
        torch.testing.assert_close(network.hidden(maps)[0, :, 3, 3], hidden[0], atol=1e-5, rtol=1e-4)
    assert not network.skips[0].weight.any()


def test_hidden_layers_of_another_width_start_anew(scenes: Path) -> None:
    tensors = {f"features.{name}": value for name, value in make_layers(cfgs["D"]).state_dict().items()}
    tensors["classifier.0.weight"] = torch.zeros(16, 512 * 7 * 7)

    network = network_of(scenes, config_of(hidden=8), published(tensors))

    assert torch.equal(network.stages[4][4].weight, tensors["features.28.weight"])  # type: ignore[index]
    assert network.hidden[0].weight.any()


def original(network: FcnNetwork) -> dict[str, Tensor]:
    state = network.state_dict()
    return {
        f"{theirs}.{kind}": state[f"{ours}.{kind}"]
        for ours, theirs in _ORIGINAL.items()
        for kind in ("weight", "bias")
        if f"{ours}.{kind}" in state
    }


def test_the_original_network_s_answers_are_ours_for_inputs_as_here(scenes: Path) -> None:
    torch.manual_seed(0)
    config = config_of(**_SMALL)
    theirs = FcnNetwork(config.model, 4).eval()

    ours = network_of(scenes, config, uploaded(original(theirs)))

    pixels = torch.rand(1, 3, 64, 64)
    seen_here = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    seen_there = 255 * pixels.flip(1) - BLUE_GREEN_RED[:, None, None]
    with torch.no_grad():
        inside = (..., slice(1, -1), slice(1, -1))
        mine, original_maps = ours.stages[0][0](seen_here), theirs.stages[0][0](seen_there)  # type: ignore[index]
        torch.testing.assert_close(mine[inside], original_maps[inside], atol=0.01, rtol=1e-4)
        scores = torch.stack([ours(seen_here).flatten(), theirs(seen_there).flatten()])
    assert torch.corrcoef(scores)[0, 1] > 0.999
    for name, value in theirs.state_dict().items():
        assert name.startswith("stages.0.0.") or torch.equal(ours.state_dict()[name], value), name


def test_original_weights_of_other_classes_keep_the_body(scenes: Path) -> None:
    config = config_of(**_SMALL)
    theirs = FcnNetwork(config.model, 21)

    ours = network_of(scenes, config, uploaded(original(theirs)))

    assert torch.equal(ours.hidden[0].weight, theirs.hidden[0].weight)
    assert ours.score.weight.shape[0] == 4


def test_tensors_of_something_else_are_refused_with_what_is_missing(scenes: Path) -> None:
    with pytest.raises(SourceUnfit, match=r"is missing there: .*stages"):
        network_of(scenes, config_of(**_SMALL), uploaded({"encoder.weight": torch.zeros(3)}))


@pytest.mark.parametrize(
    ("name", "model", "remedy"),
    [
        ("ResNet50_Weights.DEFAULT", {}, "use torchvision:VGG16_Weights.IMAGENET1K_V1"),
        ("VGG16_Weights.IMAGENET1K_FEATURES", {}, "use torchvision:VGG16_Weights.IMAGENET1K_V1"),
        ("VGG16_Weights.DEFAULT", {"body": "small"}, "set both so"),
        ("VGG16_Weights.DEFAULT", {"batch_norm": True}, "set both so"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_job_is_created(name: str, model: dict[str, object], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        config_of(**model).adopt(Origin(f"torchvision:{name}", "torchvision", "torchvision", {}))
