"""Starting from a trained classifier: what is copied, what is new, what is frozen, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from services.core.errors import RequestInvalid
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from workers.families.base import Placement, Source, SourceUnfit, TrainState
from workers.families.classification import networks
from workers.families.classification.config import FinetuneConfig, LibraryModel, MobileConfig
from workers.families.classification.finetune import Finetune
from workers.families.classification.network import Classifier, ServedNetwork
from workers.families.config import Origin

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
SMALL = {"data": {"image_size": 16, "stored_size": 16, "batch_size": 8}}
MOBILE = MobileConfig.model_validate(MobileConfig.PRESETS["tiny"] | SMALL)
MODEL = Origin("projects/p/models/m/versions/1", "model", "classification/mobilenet", MOBILE.model_dump(mode="json"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, in canonical form."""
    root = tmp_path_factory.mktemp("digits")
    (root / "canonical").mkdir()
    folder = write_digits(root / "folder", size=16, train=6, val=6, classes=3)
    import_folder(folder, root / "canonical", source_format=None, limits=ImportLimits())
    return root / "canonical"


def make(digits: Path, origin: Origin = MODEL, **tune: Any) -> tuple[Finetune, TrainState]:
    config = FinetuneConfig.model_validate(FinetuneConfig.PRESETS["tiny"] | SMALL | {"tune": tune}).adopt(origin)
    recipe = Finetune(config, digits)
    torch.manual_seed(0)
    return recipe, recipe.build(CPU)


def source_of(classifier: Classifier, origin: Origin = MODEL, *, classes: list[str] | None = None) -> Source:
    constants = {} if classes is None else {"classes": classes}
    return Source(origin, ServedNetwork(classifier).state_dict(), constants)


def trained(num_classes: int) -> Classifier:
    torch.manual_seed(7)
    return networks.mobilenet(MOBILE.model, MOBILE.data, num_classes)


def weights(state: TrainState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.modules["network"].state_dict().items()}


def test_the_body_is_the_source_s_and_a_head_for_other_classes_is_new(digits: Path) -> None:
    recipe, state = make(digits)
    before, classifier = weights(state), trained(10)

    recipe.load_source(state, source_of(classifier, classes=[str(n) for n in range(10)]))

    after = weights(state)
    assert all(torch.equal(after[f"body.{name}"], value) for name, value in classifier.body.state_dict().items())
    assert torch.equal(after["head.weight"], before["head.weight"])


@pytest.mark.parametrize(
    ("classes", "head", "is_kept"),
    [
        pytest.param(["0", "1", "2"], "auto", True, id="the same classes keep their head"),
        pytest.param(["7", "8", "9"], "auto", False, id="as many others get a new one"),
        pytest.param(["0", "1", "2"], "new", False, id="a new one was asked for"),
        pytest.param(["7", "8", "9"], "keep", True, id="the old one was asked for"),
    ],
)
def test_the_head_follows_the_classes_and_the_config(
    digits: Path, classes: list[str], head: str, is_kept: bool
) -> None:
    recipe, state = make(digits, head=head)
    classifier = trained(3)

    recipe.load_source(state, source_of(classifier, classes=classes))

    assert torch.equal(weights(state)["head.weight"], classifier.head.weight) is is_kept


def test_a_head_of_other_shape_cannot_be_kept(digits: Path) -> None:
    recipe, state = make(digits, head="keep")

    with pytest.raises(SourceUnfit, match=r"\(3, 160\) here and \(10, 160\)"):
        recipe.load_source(state, source_of(trained(10)))


def test_a_checkpoint_has_its_network_s_names(digits: Path) -> None:
    origin = Origin("projects/p/jobs/j/checkpoints/c", "checkpoint", "classification/mobilenet", MODEL.config)
    recipe, state = make(digits, origin)
    classifier = trained(3)
    tensors = {f"network.{name}": value for name, value in classifier.state_dict().items()}

    recipe.load_source(state, Source(origin, tensors))

    assert torch.equal(weights(state)["head.weight"], classifier.head.weight)


def test_torchvision_s_names_become_a_body_and_a_head(digits: Path) -> None:
    origin = Origin("torchvision:MobileNet_V3_Small_Weights.IMAGENET1K_V1", "torchvision", "torchvision", {})
    config = FinetuneConfig.model_validate({"data": {"image_size": 32, "stored_size": 32}}).adopt(origin)
    assert config.network.model["name"] == "mobilenet_v3_small"
    recipe = Finetune(config, digits)
    state = recipe.build(CPU)
    net = networks._create(LibraryModel(name="mobilenet_v3_small"))

    recipe.load_source(state, Source(origin, net.state_dict()))

    found = weights(state)
    assert torch.equal(found["body.features.0.0.weight"], net.get_submodule("features.0.0").weight)
    assert found["head.weight"].shape[0] == 3


def uploaded(digits: Path, tensors: dict[str, Tensor], **network: Any) -> TrainState:
    """Return what a job starts with from weights of its own that belong to this network."""
    origin = Origin("projects/p/datasets/w", "weights", "weights", {})
    config = FinetuneConfig.model_validate({**SMALL, "network": network}).adopt(origin)
    recipe = Finetune(config, digits)
    state = recipe.build(CPU)
    recipe.load_source(state, Source(origin, tensors))
    return state


@pytest.mark.parametrize("source", ["torchvision", "timm"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_uploaded_weights_keep_the_names_of_their_library_and_their_head(
    digits: Path, source: str, prefix: str
) -> None:
    model: dict[str, Any] = {"source": source, "name": "resnet18"}
    build = timm.create_model if source == "timm" else torchvision.models.get_model
    net = build("resnet18", num_classes=3)
    tensors = {f"{prefix}{name}": value for name, value in net.state_dict().items()}

    found = weights(uploaded(digits, tensors, model=model))

    assert torch.equal(found["head.weight"], net.fc.weight)
    assert any(
        torch.equal(value, net.conv1.weight) for value in found.values() if value.shape == net.conv1.weight.shape
    )


def test_uploaded_weights_may_be_those_of_a_bundle(digits: Path) -> None:
    classifier = trained(10)
    tensors = dict(source_of(classifier).tensors)

    found = weights(
        uploaded(digits, tensors, recipe="classification/mobilenet", model=MOBILE.model.model_dump(mode="json"))
    )

    assert all(torch.equal(found[f"body.{name}"], value) for name, value in classifier.body.state_dict().items())
    assert found["head.weight"].shape[0] == 3


def test_uploaded_weights_of_another_network_are_refused_by_name(digits: Path) -> None:
    net = torchvision.models.get_model("resnet34")

    with pytest.raises(SourceUnfit, match=r"projects/p/datasets/w do not fit this network: is unknown here: layer1\.2"):
        uploaded(digits, net.state_dict(), model={"name": "resnet18"})


def test_uploaded_weights_need_a_network(digits: Path) -> None:
    with pytest.raises(ValueError, match=r"projects/p/datasets/w are tensors .* set network\.model"):
        FinetuneConfig().adopt(Origin("projects/p/datasets/w", "weights", "weights", {}))


def test_uploaded_weights_without_a_head_are_refused(digits: Path) -> None:
    with pytest.raises(SourceUnfit, match=r"projects/p/datasets/w has no head\.weight"):
        uploaded(digits, {"a": torch.zeros(1)}, recipe="classification/mobilenet")


@pytest.mark.parametrize(("name", "is_rescaled"), [("Inception_V3", True), ("GoogLeNet", True), ("ResNet18", False)])
def test_published_weights_bring_the_scale_of_their_images(name: str, is_rescaled: bool) -> None:
    origin = Origin(f"torchvision:{name}_Weights.IMAGENET1K_V1", "torchvision", "torchvision", {})

    config = FinetuneConfig().adopt(origin)

    assert config.network.model["transform_input"] is is_rescaled


def test_a_mismatch_names_tensors_and_shapes(digits: Path) -> None:
    recipe, state = make(digits)
    before = weights(state)
    source = source_of(trained(10))
    spoilt = dict(source.tensors)
    spoilt["classifier.body.maps.0.weight"] = torch.zeros(8, 3, 3, 3)
    del spoilt["classifier.body.maps.1.bias"]

    with pytest.raises(SourceUnfit) as caught:
        recipe.load_source(state, Source(MODEL, spoilt))

    assert "body.maps.0.weight (here (32, 3, 3, 3), there (8, 3, 3, 3))" in str(caught.value)
    assert "is missing there: body.maps.1.bias" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in weights(state).items())


def test_a_frozen_body_neither_learns_nor_gathers_statistics(digits: Path) -> None:
    recipe, state = make(digits, freeze="body")
    before = weights(state)
    source = recipe.train_batches()

    for step in range(2):
        recipe.train_step(state, recipe.to_device(source.batch(step), CPU), CPU)
    recipe.evaluate(state, CPU)

    after = weights(state)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}
    assert all(
        not module.training for module in state.modules["network"].modules() if isinstance(module, nn.BatchNorm2d)
    )


def test_only_the_first_stages_are_frozen(digits: Path) -> None:
    _, state = make(digits, freeze="stages", freeze_stages=2)

    still = {name for name, value in state.modules["network"].named_parameters() if not value.requires_grad}

    assert still == {"body.maps.0.weight", "body.maps.1.weight", "body.maps.1.bias"}


def test_too_many_frozen_stages_are_refused_with_their_names(digits: Path) -> None:
    with pytest.raises(RequestInvalid, match="freeze fewer"):
        make(digits, freeze="stages", freeze_stages=50)


def test_frozen_statistics_stay_while_weights_learn(digits: Path) -> None:
    recipe, state = make(digits, freeze_statistics=True)
    before = weights(state)

    recipe.train_step(state, recipe.to_device(recipe.train_batches().batch(0), CPU), CPU)
    # Evaluation puts every module back into the mode that it had.
    recipe.evaluate(state, CPU)
    recipe.train_step(state, recipe.to_device(recipe.train_batches().batch(1), CPU), CPU)

    after = weights(state)
    assert not torch.equal(before["body.maps.0.weight"], after["body.maps.0.weight"])
    assert torch.equal(before["body.maps.1.running_mean"], after["body.maps.1.running_mean"])


def test_the_head_learns_faster_than_the_body(digits: Path) -> None:
    recipe, state = make(digits, head_lr_factor=5.0)

    recipe.train_step(state, recipe.to_device(recipe.train_batches().batch(0), CPU), CPU)

    head = set(map(id, state.modules["network"].get_submodule("head").parameters()))
    rates = {id(p) in head: group["lr"] for group in state.optimizers["network"].param_groups for p in group["params"]}
    assert rates[True] == pytest.approx(5.0 * rates[False])


def test_a_source_of_other_channels_is_refused_when_the_job_is_asked_for() -> None:
    grey = Origin(
        MODEL.name, "model", "classification/mobilenet", {"data": {"channels": 1}, "model": {"name": "small"}}
    )

    with pytest.raises(ValueError, match=r"set data\.channels to 1"):
        FinetuneConfig.preset("tiny").adopt(grey)
