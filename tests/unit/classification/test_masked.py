"""A classifier that starts from a masked autoencoder sees what the encoder saw, and refuses one that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from workers.families.base import Placement, Source, SourceUnfit, TrainState
from workers.families.classification.config import FinetuneConfig
from workers.families.classification.finetune import Finetune
from workers.families.classification.network import Classifier
from workers.families.classification.squares import to_input
from workers.families.config import Origin
from workers.families.representation.config import MaeConfig
from workers.families.representation.data import to_input as to_mae_input
from workers.families.representation.mae_network import MaeNetwork, ServedMae

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, in canonical form."""
    root = tmp_path_factory.mktemp("digits")
    (root / "canonical").mkdir()
    folder = write_digits(root / "folder", size=8, train=6, val=6, classes=3)
    import_folder(folder, root / "canonical", source_format=None, limits=ImportLimits())
    return root / "canonical"


def mae(channels: int = 3, size: tuple[int, int] = (8, 8), **model: Any) -> MaeConfig:
    tiny = MaeConfig.PRESETS["tiny"]
    data = {**tiny["data"], "image_size": size, "stored_size": max(size), "channels": channels}
    return MaeConfig.model_validate({"data": data, "model": {**tiny["model"], **model}})


def trained(config: MaeConfig) -> MaeNetwork:
    """Return a network none of whose tensors is what it was built with, or a constant."""
    torch.manual_seed(3)
    network = MaeNetwork(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    return network.eval()


def origin_of(config: MaeConfig, kind: Any = "model") -> Origin:
    return Origin("projects/p/models/m/versions/1", kind, "representation/mae", config.model_dump(mode="json"))


def source_of(network: MaeNetwork, origin: Origin) -> Source:
    if origin.kind == "model":
        return Source(origin, ServedMae(network).state_dict())
    return Source(origin, {f"network.{name}": value for name, value in network.state_dict().items()})


def asked(channels: int = 3, size: int = 8, preset: str = "tiny", **sections: Any) -> FinetuneConfig:
    values = FinetuneConfig.preset(preset).model_dump(mode="json", exclude={"network"})
    values["data"] |= {"image_size": size, "stored_size": size, "channels": channels, "batch_size": 4}
    return FinetuneConfig.model_validate(values | sections)


def start(digits: Path, config: FinetuneConfig, source: Source) -> tuple[Finetune, TrainState]:
    recipe = Finetune(config.adopt(source.origin), digits)
    state = recipe.build(CPU)
    recipe.load_source(state, source)
    return recipe, state


def body_of(state: TrainState) -> nn.Module:
    network = state.modules["network"]
    assert isinstance(network, Classifier)
    return network.body.eval()


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
@pytest.mark.parametrize("channels", [1, 3])
def test_its_features_are_the_encoder_s_of_the_whole_image(digits: Path, channels: int, kind: str) -> None:
    config = mae(channels)
    network = trained(config)
    pixels = torch.randint(0, 256, (3, channels, 8, 8), dtype=torch.uint8)

    _, state = start(digits, asked(channels), source_of(network, origin_of(config, kind)))

    with torch.no_grad():
        expected = network.embedding(to_mae_input(pixels))
        found = body_of(state)(to_input(pixels.float() / 255))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 0.05


def test_the_head_is_new_and_nothing_of_the_decoder_is_there(digits: Path) -> None:
    config = mae()
    recipe, state = start(digits, asked(), source_of(trained(config), origin_of(config)))
    network = state.modules["network"]
    torch.manual_seed(0)
    rows = recipe.build_network(recipe.config, 3).state_dict()

    assert network.state_dict().keys() == rows.keys()
    assert network.get_submodule("head").weight.shape == (3, 64)


def test_positions_begin_as_the_fixed_ones_and_go_on_learning(digits: Path) -> None:
    config = mae()
    network = trained(config)
    recipe, state = start(digits, asked(), source_of(network, origin_of(config)))
    positions = state.modules["network"].get_parameter("body.encoder.pos_embedding")
    before = positions.detach().clone()

    torch.testing.assert_close(before[:, 1:], network.encoder.positions)
    assert torch.equal(before[:, :1], torch.zeros(1, 1, 64))

    for step in range(2):
        recipe.train_step(state, recipe.to_device(recipe.train_batches().batch(step), CPU), CPU)
    assert not torch.equal(positions.detach(), before)


def test_the_job_s_config_says_which_transformer_it_became() -> None:
    network = asked().adopt(origin_of(mae())).network

    expected = {"patch": 2, "dim": 64, "depth": 3, "heads": 4, "mlp": 256, "dropout": 0.0}
    assert (network.recipe, network.model) == ("classification/vit", expected)


@pytest.mark.parametrize(("preset", "depth"), [("full", 12), ("vit_l", 24)])
def test_the_paper_s_sizes_are_tuned_with_nothing_to_set(preset: str, depth: int) -> None:
    config = FinetuneConfig.preset("mae").adopt(origin_of(MaeConfig.preset(preset)))

    assert config.network.model["depth"] == depth


def test_a_tuned_one_is_started_from_like_any_classifier() -> None:
    first = asked().adopt(origin_of(mae()))
    again = Origin("m/2", "model", "classification/finetune", first.model_dump(mode="json"))

    assert asked().adopt(again).network == first.network
    with pytest.raises(ValueError, match=r"m/2 sees images of 8 x 8 pixels, and data.image_size is 16: set it to 8"):
        asked(size=16).adopt(again)


@pytest.mark.parametrize(
    ("config", "source", "message"),
    [
        pytest.param(asked(size=16), mae(), r"8 x 8 pixels, and data.image_size is 16: set it to 8", id="image size"),
        pytest.param(asked(), mae(size=(8, 12)), r"8 x 12 pixels, .* of two equal sides", id="no square"),
        pytest.param(asked(channels=1), mae(), r"sees 3 channels: set data.channels to 3", id="channels"),
        pytest.param(asked(tune={"head": "keep"}), mae(), r"has no head to keep: set tune.head to auto", id="head"),
        pytest.param(
            asked(network={"recipe": "classification/vit", "model": {"patch": 4, "dim": 64, "heads": 4, "mlp": 256}}),
            mae(),
            r"network.model.depth is 12, there 3, network.model.patch is 4, there 2\): leave network out",
            id="patch and depth",
        ),
        pytest.param(
            asked(network={"recipe": "classification/mobilenet", "model": {}}),
            mae(),
            r"network.recipe is classification/mobilenet, there classification/vit\): leave network out",
            id="recipe",
        ),
    ],
)
def test_what_does_not_fit_is_refused_when_the_job_is_asked_for(
    config: FinetuneConfig, source: MaeConfig, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"projects/p/models/m/versions/1.*{message}"):
        config.adopt(origin_of(source))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        pytest.param("encoder.norm.bias", None, r"is missing there: body.encoder.ln.bias", id="missing"),
        pytest.param("encoder.extra", torch.zeros(1), r"is unknown here: body.extra", id="unknown"),
        pytest.param(
            "encoder.blocks.1.mlp.fc1.bias",
            torch.zeros(7),
            r"body.encoder.layers.encoder_layer_1.mlp.0.bias \(here \(256,\), there \(7,\)\)",
            id="shape",
        ),
    ],
)
def test_tensors_that_are_not_its_config_s_are_refused_by_name(
    digits: Path, name: str, change: Tensor | None, message: str
) -> None:
    config = mae()
    source = source_of(trained(config), origin_of(config))
    tensors = {key: value for key, value in source.tensors.items() if key != f"network.{name}"}
    if change is not None:
        tensors[f"network.{name}"] = change

    with pytest.raises(SourceUnfit, match=message):
        start(digits, asked(), Source(source.origin, tensors))


def test_blocks_learn_the_slower_the_nearer_they_are_to_the_image(digits: Path) -> None:
    config = mae()
    tune = {"head_lr_factor": 1.0, "layer_decay": 0.5}
    _, state = start(digits, asked(tune=tune), source_of(trained(config), origin_of(config)))
    groups = state.optimizers["network"].param_groups
    factors = {id(parameter): group["lr_factor"] for group in groups for parameter in group["params"]}

    found = {name: factors.pop(id(one)) for name, one in state.modules["network"].named_parameters()}

    assert not factors
    assert found["body.encoder.pos_embedding"] == found["body.class_token"] == found["body.conv_proj.weight"] == 0.5**4
    blocks = [found[f"body.encoder.layers.encoder_layer_{n}.ln_1.weight"] for n in range(3)]
    assert blocks == [0.5**3, 0.5**2, 0.5]
    assert found["body.encoder.ln.bias"] == found["head.weight"] == 1.0


def test_frozen_blocks_stay_and_the_others_learn_at_their_own_rates(digits: Path) -> None:
    config = mae()
    tune = {"layer_decay": 0.5, "freeze": "stages", "freeze_stages": 2}
    recipe, state = start(digits, asked(tune=tune), source_of(trained(config), origin_of(config)))
    before = {name: one.detach().clone() for name, one in state.modules["network"].named_parameters()}

    recipe.train_step(state, recipe.to_device(recipe.train_batches().batch(1), CPU), CPU)

    after = dict(state.modules["network"].named_parameters())
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    first = {name for name in before if ".encoder_layer_0." in name or "conv_proj" in name}
    assert still == first | {"body.class_token", "body.encoder.pos_embedding"}
