"""Of which network uploaded weights are: what a request states, over whichever preset, and what it leaves open."""

from __future__ import annotations

from typing import Any

import pytest

from services.core.errors import RequestInvalid
from services.recipes.manager import RecipeManager
from workers.families.classification.config import FinetuneConfig, SourceNetwork
from workers.families.config import Origin

TENSORS = Origin("projects/p/datasets/w", "weights", "weights", {})
GREY = {"data": {"image_size": 28, "stored_size": 28, "channels": 1}}
PRESETS = FinetuneConfig.preset_names()


def asked(preset: str, overrides: dict[str, Any]) -> FinetuneConfig:
    """Return the config of a request, as it is before its source completes it."""
    config = RecipeManager.of_catalog().get("classification/finetune").resolve(preset, overrides)
    assert isinstance(config, FinetuneConfig)
    return config


def violations(preset: str, network: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RequestInvalid) as caught:
        asked(preset, {"network": network})
    return {violation.field: violation.description for violation in caught.value.violations}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("network", "recipe", "name"),
    [
        pytest.param({"model": {"name": "resnet18"}}, "classification/train", "resnet18", id="a model alone"),
        pytest.param(
            {"model": {"name": "resnet50"}}, "classification/train", "resnet50", id="the default, spelled out"
        ),
        pytest.param(
            {"recipe": "classification/train", "model": {"name": "resnet18"}},
            "classification/train",
            "resnet18",
            id="a recipe and its model",
        ),
        pytest.param(
            {"recipe": "classification/mobilenet"},
            "classification/mobilenet",
            "mobilenet_v3_large",
            id="a recipe with one network where nothing is said",
        ),
    ],
)
def test_a_stated_network_is_that_of_the_weights_and_nothing_of_a_preset(
    preset: str, network: dict[str, Any], recipe: str, name: str
) -> None:
    adopted = asked(preset, {"network": network}).adopt(TENSORS).network

    assert (adopted.recipe, adopted.model["name"]) == (recipe, name)
    assert adopted.model == SourceNetwork.model_validate(network).model


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_that_is_not_the_source_s_is_refused_rather_than_left_aside(preset: str) -> None:
    source = Origin("torchvision:ResNet18_Weights.DEFAULT", "torchvision", "torchvision", {})

    with pytest.raises(
        ValueError, match=r"than network says \(network.model.name is mobilenet_v2, there resnet18\): leave network out"
    ):
        asked(preset, {"network": {"model": {"name": "mobilenet_v2"}}}).adopt(source)
    adopted = FinetuneConfig.model_validate(asked(preset, {}).model_dump()).adopt(source)
    assert adopted.adopt(source) == adopted


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"network": {}}, id="nothing, in a section"),
        pytest.param({"network": {"recipe": "classification/train"}}, id="a recipe that builds any network"),
    ],
)
def test_weights_of_a_network_that_was_left_open_are_refused(preset: str, overrides: dict[str, Any]) -> None:
    config = asked(preset, overrides)

    with pytest.raises(ValueError, match=r"projects/p/datasets/w are tensors .* set network\.model"):
        config.adopt(TENSORS)


def test_what_a_worker_reads_builds_the_network_that_was_stated() -> None:
    adopted = asked("tiny", {"network": {"model": {"name": "resnet18"}}}).adopt(TENSORS)

    read = FinetuneConfig.model_validate(adopted.model_dump(mode="json"))

    assert read == adopted
    assert read.network.is_stated


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("network", "field", "said"),
    [
        pytest.param({"model": {"name": "res net"}}, "config.network.model.name", "should match", id="a bad name"),
        pytest.param(
            {"model": {"width": 3}}, "config.network.model.width", "there is no 'width' here", id="no such key"
        ),
        pytest.param(
            {"recipe": "classification/vit", "model": {"patch": 0}},
            "config.network.model.patch",
            "greater than or equal to 1",
            id="a value out of range",
        ),
        pytest.param({"recipe": "gan/dcgan"}, "config.network.recipe", "must be one of", id="another family's recipe"),
    ],
)
def test_what_is_wrong_with_a_stated_network_is_named_where_it_was_typed(
    preset: str, network: dict[str, Any], field: str, said: str
) -> None:
    found = violations(preset, network)

    assert list(found) == [field]
    assert said in found[field]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_source_of_grey_images_goes_with_a_preset_for_colours(preset: str) -> None:
    grey = Origin("projects/p/models/m/versions/1", "model", "classification/mnist_cnn", GREY)

    adopted = asked(preset, GREY).adopt(grey)

    assert (adopted.network.recipe, adopted.data.channels) == ("classification/mnist_cnn", 1)
