"""What every recipe of the catalog must do; a new one is covered by its line in the catalog."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.builders.pictures import UNREADABLE, odd_and_plain, pixels
from tests.builders.training import Outcome, attempt
from tests.integration.conformance.small import CPU, FOLDERS, RECIPES, dataset_families, dataset_family, make, tiny
from workers.engine import rng
from workers.engine.frames import FrameKind
from workers.engine.state import EMA, MODEL
from workers.engine.tensorfile import read_tensors
from workers.families.base import Handler, Instance, InstanceInvalid, ServingSpec
from workers.families.catalog import CATALOG, family_of
from workers.serving.bundle import golden_instances, read_golden

AVERAGED = sorted(
    {
        family_of(name): name
        for name in reversed(RECIPES)
        if "ema" in type(CATALOG[name].load_config()().runtime).model_fields
    }.values()
)
"""The first recipe of each family that may keep an average of its weights."""

OVERFIT_STEPS = 60
OVERFIT_FACTOR = 0.5
"""What is left of the loss on four samples, augmented anew at each step, after that many."""

ODD_AND_PLAIN = odd_and_plain(Image.fromarray(pixels(72, 48)))
"""Neither square nor the same when it is turned or mirrored."""


@pytest.fixture
def dataset_of(stored: Callable[[str], Path]) -> Callable[[str], Path]:
    """Return what finds the four-sample dataset that a recipe reads."""
    return lambda name: stored(dataset_family(name))


def test_every_family_has_a_dataset_here() -> None:
    assert {family for name in CATALOG for family in dataset_families(name)} == set(FOLDERS)


@pytest.mark.parametrize("name", RECIPES)
def test_the_config_loads_without_torch_and_its_presets_are_complete(name: str) -> None:
    program = f"""
import json, sys
from workers.families.catalog import CATALOG
config = CATALOG[{name!r}].load_config()
assert config.model_json_schema()["properties"]
for preset in config.preset_names():
    one = config.preset(preset)
    assert config.model_validate_json(one.model_dump_json()) == one, preset
print(json.dumps([config.preset_names(), sorted(m for m in sys.modules if m in ("torch", "torchvision", "numpy"))]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    presets, heavy = json.loads(done.stdout)
    assert {"full", "tiny"} <= set(presets)
    assert heavy == []


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_change_every_parameter_and_give_finite_scalars(name: str, dataset_of: Callable[[str], Path]) -> None:
    recipe = make(name, tiny(name, max_steps=10), dataset_of(name))
    source = recipe.train_batches()
    rng.seed_all(1)
    state = recipe.build(CPU)
    before = {
        f"{owner}.{key}": value.detach().clone()
        for owner, module in state.modules.items()
        for key, value in module.named_parameters()
        if value.requires_grad
    }

    for step in range(2):
        scalars = recipe.train_step(state, recipe.to_device(source.batch(step), CPU), CPU)
        state.step += 1
        assert all(value.dim() == 0 and not value.requires_grad for value in scalars.values())
        assert all(math.isfinite(value) for value in scalars.values()), scalars

    now = {f"{owner}.{key}": v for owner, module in state.modules.items() for key, v in module.named_parameters()}
    assert before
    assert [key for key, value in before.items() if torch.equal(value, now[key])] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", RECIPES)
def test_resume_equals_uninterrupted(
    name: str, precision: str, dataset_of: Callable[[str], Path], tmp_path: Path
) -> None:
    config = tiny(name, max_steps=4, precision=precision, channels_last="on")
    where: dict[str, Any] = {"recipe": name, "catalog": CATALOG, "dataset_dir": dataset_of(name)}
    straight = attempt(tmp_path, config, **where)
    assert straight.error is None

    # Where a training stops is no matter of precision, and processors without bf16 take their time for it.
    for step in (1, 3) if precision == "fp32" else (3,):
        stopped = attempt(tmp_path, config, stop_at=step, **where)
        resumed = attempt(tmp_path, config, resume_dir=stopped.checkpoint_dir(step), **where)

        assert weights_of(resumed, 4) == weights_of(straight, 4)
        assert resumed.final["metrics"] == straight.final["metrics"]


@pytest.mark.parametrize("name", AVERAGED)
def test_an_average_is_resumed_and_is_what_evaluates_and_serves(
    name: str, dataset_of: Callable[[str], Path], tmp_path: Path
) -> None:
    config = tiny(name, max_steps=4, ema=0.9)
    config["limits"]["checkpoint_every_steps"] = 2
    where: dict[str, Any] = {"recipe": name, "catalog": CATALOG, "dataset_dir": dataset_of(name)}
    straight = attempt(tmp_path, config, **where)
    resumed = attempt(tmp_path, config, resume_dir=straight.checkpoint_dir(2), **where)

    assert straight.error is None
    assert weights_of(resumed, 4) == weights_of(straight, 4)
    assert resumed.final["metrics"] == straight.final["metrics"]
    files = straight.checkpoint(4).files
    trained, average = ({key.partition(".")[2]: value for key, value in files[one].items()} for one in (MODEL, EMA))
    earlier = straight.checkpoint(2).files[EMA]
    assert any(not torch.equal(average[key.partition(".")[2]], value) for key, value in earlier.items())
    bundle = Path(straight.final["bundle_dir"])
    # What serves is the trained network, a part of it, or something around it with one name before the others.
    exported = {
        key if key in average else key.partition(".")[2]: value
        for key, value in read_tensors(bundle / "weights.safetensors").items()
    }
    shared = exported.keys() & average.keys()
    assert any(not torch.equal(average[key], trained[key]) for key in shared)
    assert all(torch.equal(exported[key], average[key]) for key in shared)
    handler, network = served(name, bundle)
    golden = read_golden(bundle)
    answers = handler.predict(golden_instances(golden), network)
    for want, got in zip(golden.answers, answers, strict=True):
        assert not isinstance(got, InstanceInvalid)
        assert handler.compare(want, got).passed


@pytest.mark.parametrize("name", AVERAGED)
def test_where_an_average_is_kept_nothing_else_is_looked_at(name: str, dataset_of: Callable[[str], Path]) -> None:
    recipe = make(name, tiny(name, max_steps=10, ema=0.9), dataset_of(name))
    rng.seed_all(1)
    state = recipe.build(CPU)
    before = recipe.evaluate(state, CPU)
    with torch.no_grad():
        for parameter in state.modules["network"].parameters():
            parameter.fill_(torch.nan)

    assert recipe.evaluate(state, CPU) == pytest.approx(before, nan_ok=True)
    assert recipe.sample(state, CPU)


@pytest.mark.parametrize("name", RECIPES)
def test_four_samples_are_learned_by_heart(name: str, dataset_of: Callable[[str], Path], tmp_path: Path) -> None:
    config = tiny(name, max_steps=OVERFIT_STEPS)
    if "lr_generator" in config.get("optim", {}):
        # In a game one player's loss falls for certain only while the other hardly moves.
        config["optim"]["lr_generator"] = 1e-6

    outcome = attempt(tmp_path, config, recipe=name, catalog=CATALOG, dataset_dir=dataset_of(name))

    assert outcome.error is None
    losses = [loss for _, loss in sorted(outcome.losses().items())]
    assert sum(losses[-5:]) / 5 < OVERFIT_FACTOR * losses[0]


@pytest.mark.parametrize("name", RECIPES)
def test_the_bundle_s_network_gives_the_golden_answers_whatever_else_is_asked(
    name: str, dataset_of: Callable[[str], Path], tmp_path: Path
) -> None:
    config = tiny(name, max_steps=4)
    outcome = attempt(tmp_path, config, recipe=name, catalog=CATALOG, dataset_dir=dataset_of(name))
    bundle = Path(outcome.final["bundle_dir"])
    handler, network = served(name, bundle)
    golden = read_golden(bundle)
    instances = list(golden_instances(golden))
    has_pictures = instances[0].body is not None
    strange = [Instance(body=data, fields={}, params={}) for data in UNREADABLE.values()]
    wrong = [Instance(body=None, fields={"image": value}, params={}) for value in (3, {"b64": "*"}, {"url": "x"}, None)]

    answers = handler.predict(instances, network)
    refused = handler.predict([*strange, *wrong], network)
    mixed = handler.predict([strange[0], instances[0], *wrong, instances[-1], strange[-1]], network)

    assert len(answers) == len(golden.answers) > 0
    same = [*zip(golden.answers, answers, strict=True), (golden.answers[0], mixed[1]), (golden.answers[-1], mixed[-2])]
    for want, got in same:
        assert not isinstance(got, InstanceInvalid)
        assert handler.compare(want, got).passed
    # A generator needs no input, but it takes no bytes for one either.
    is_refused = [isinstance(answer, InstanceInvalid) for answer in refused]
    assert all(is_refused[1:]), refused
    assert is_refused[0] or not has_pictures
    if has_pictures:
        for kind, (odd, plain) in ODD_AND_PLAIN.items():
            (answer, seen), (expected, shown) = (looked_at(handler, network, data) for data in (odd, plain))
            assert not isinstance(answer, InstanceInvalid), f"{kind}: {answer}"
            assert answer == expected, kind
            assert torch.equal(seen, shown), kind


@pytest.mark.parametrize("name", RECIPES)
def test_evaluation_and_samples_leave_the_state_as_it_was(name: str, dataset_of: Callable[[str], Path]) -> None:
    recipe = make(name, tiny(name, max_steps=10), dataset_of(name))
    rng.seed_all(1)
    state = recipe.build(CPU)
    before = {owner: {k: v.clone() for k, v in m.state_dict().items()} for owner, m in state.modules.items()}

    metrics = recipe.evaluate(state, CPU)
    pictures = recipe.sample(state, CPU)

    assert recipe.metric in metrics
    assert pictures
    assert all(picture.png.startswith(b"\x89PNG") for picture in pictures)
    for owner, module in state.modules.items():
        assert all(torch.equal(value, before[owner][key]) for key, value in module.state_dict().items())


def served(name: str, bundle: Path) -> tuple[Handler, torch.nn.Module]:
    """Return the handler and the network of a bundle, as an archive has them."""
    document = json.loads((bundle / "bundle.json").read_bytes())
    spec = ServingSpec(tuple(document["spec"]["input_shape"]), document["spec"]["constants"])
    entry = CATALOG[name]
    network = entry.load_recipe().load_serving_module(entry.load_config().model_validate(document["config"]), spec)
    network.load_state_dict(read_tensors(bundle / "weights.safetensors"))
    return entry.load_handler()(spec), network.eval()


def looked_at(handler: Handler, network: torch.nn.Module, data: bytes) -> tuple[Any, torch.Tensor]:
    """Return the answer to an image, and what the network saw of it."""
    seen: list[torch.Tensor] = []

    def look(images: torch.Tensor) -> Any:
        seen.append(images.clone())
        return network(images)

    (answer,) = handler.predict([Instance(body=data, fields={}, params={})], look)
    return answer, torch.cat(seen) if seen else torch.empty(0)


def weights_of(outcome: Outcome, step: int) -> dict[str, str]:
    """Return the digest of every tensor file of a checkpoint."""
    (frame,) = [frame for frame in outcome.log.of(FrameKind.CHECKPOINT) if frame["step"] == step]
    return {file["name"]: file["sha256"] for file in frame["files"] if file["name"].endswith(".safetensors")}


def test_what_a_classifier_s_embedding_should_be_is_kept_for_the_gate(
    dataset_of: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "classification/mnist_cnn"
    outcome = attempt(tmp_path, tiny(name, max_steps=1), recipe=name, catalog=CATALOG, dataset_dir=dataset_of(name))

    golden = read_golden(Path(outcome.final["bundle_dir"]))

    asking = [instance.params for instance in golden_instances(golden)]
    assert asking[:2] == [{"embedding": True}] * 2
    assert ["embedding" in one for one in golden.answers] == [bool(params) for params in asking]
