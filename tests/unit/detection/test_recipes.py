from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from workers.families.base import Instance, Placement
from workers.families.catalog import CATALOG
from workers.families.detection.config import SsdConfig, YoloV1Config
from workers.families.detection.data import Batch
from workers.families.detection.handler import DetectionHandler
from workers.families.detection.recipe import DetectionRecipe
from workers.families.detection.ssd import assign_targets, ssd_loss
from workers.families.detection.yolo_v1 import YoloV1Network

NAMES = ["detection/yolo_v1", "detection/ssd"]
CPU = Placement(torch.device("cpu"), None, torch.channels_last)


def recipe_of(name: str, directory: Path, **changes: Any) -> DetectionRecipe[Any]:
    entry = CATALOG[name]
    config = entry.load_config().preset("tiny").model_dump()
    config["data"] |= {"batch_size": 4}
    for section, fields in changes.items():
        config[section] |= fields
    recipe: DetectionRecipe[Any] = entry.load_recipe()(entry.load_config().model_validate(config), directory)
    return recipe


def train(recipe: DetectionRecipe[Any], *, steps: int, placement: Placement = CPU):
    torch.manual_seed(0)
    state = recipe.build(placement)
    source = recipe.train_batches()
    history = []
    for step in range(steps):
        scalars = recipe.train_step(state, recipe.to_device(source.batch(step), placement), placement)
        state.step += 1
        history.append(scalars)
    return state, history


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_change_every_parameter_and_report_finite_scalars(name, scenes):
    recipe = recipe_of(name, scenes)
    torch.manual_seed(0)
    before = {key: value.clone() for key, value in recipe.build(CPU).modules["network"].named_parameters()}

    state, history = train(recipe, steps=2)

    for key, value in state.modules["network"].named_parameters():
        assert not torch.equal(value, before[key]), key
    for scalars in history:
        assert all(torch.isfinite(value) and not value.requires_grad for value in scalars.values())
        parts = [value for key, value in scalars.items() if key.startswith("train/loss_")]
        torch.testing.assert_close(scalars["train/loss"], torch.stack(parts).sum())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(name, scenes):
    one, _ = train(recipe_of(name, scenes), steps=3)
    other, _ = train(recipe_of(name, scenes), steps=3)

    for key, value in one.modules["network"].state_dict().items():
        assert torch.equal(value, other.modules["network"].state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_four_images_are_learned_by_heart(name, scenes):
    still = {"scale": (1, 1), "translate": 0, "flip": 0, "exposure": 1, "saturation": 1}
    recipe = recipe_of(name, scenes, augment=still, limits={"max_steps": 100}, schedule={"warmup_steps": 5})
    torch.manual_seed(0)
    state = recipe.build(CPU)
    batch = recipe.to_device(recipe.train_batches().batch(0), CPU)

    losses = []
    for _ in range(60):
        losses.append(float(recipe.train_step(state, batch, CPU)["train/loss"]))
        state.step += 1

    assert losses[-1] < 0.15 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_reports_the_recipe_s_metric_and_leaves_training_mode(name, scenes):
    recipe = recipe_of(name, scenes, eval={"voc_11_point": True})
    state, _ = train(recipe, steps=1)

    figures = recipe.evaluate(state, CPU)

    assert {recipe.metric, "eval/ap", "eval/ap75", "eval/ar", "eval/voc_ap11"} <= set(figures)
    assert all(0 <= value <= 1 for value in figures.values())
    assert state.modules["network"].training


@pytest.mark.parametrize("name", NAMES)
def test_bf16_trains_and_evaluates(name, scenes):
    placement = Placement(torch.device("cpu"), torch.bfloat16, torch.channels_last)
    recipe = recipe_of(name, scenes)

    state, history = train(recipe, steps=2, placement=placement)

    assert torch.isfinite(history[-1]["train/loss"])
    assert all(value.dtype == torch.float32 for value in state.modules["network"].parameters())
    assert recipe.metric in recipe.evaluate(state, placement)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_one_png(name, scenes):
    recipe = recipe_of(name, scenes)
    state, _ = train(recipe, steps=1)

    (picture,) = recipe.sample(state, CPU)

    with Image.open(io.BytesIO(picture.png)) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_network_answers_as_the_trained_one_for_any_batch(name, scenes):
    recipe = recipe_of(name, scenes)
    state, _ = train(recipe, steps=2)
    module, spec = recipe.serving_module(state).eval(), recipe.serving_spec()
    batch = torch.export.Dim("batch", min=1, max=64)

    exported = torch.export.export(module, (torch.randn(2, *spec.input_shape),), dynamic_shapes=({0: batch},)).module()

    for count in (1, 3):
        images = torch.randn(count, *spec.input_shape)
        for ours, theirs in zip(exported(images), module(images), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_a_reloaded_network_gives_the_golden_answers(name, scenes):
    recipe = recipe_of(name, scenes, schedule={"name": "constant", "warmup_steps": 0})
    state, _ = train(recipe, steps=20)
    spec = recipe.serving_spec()
    spec.constants["thresholds"]["score_threshold"] = 0.01  # barely trained: let boxes through
    handler = DetectionHandler(spec)
    recipe.serving_spec = lambda: spec  # type: ignore[method-assign]

    golden = recipe.golden(state, CPU, 3)

    reloaded = type(recipe).load_serving_module(recipe.config, spec)
    reloaded.load_state_dict(recipe.serving_module(state).state_dict())
    reloaded.eval()
    assert any(answer["boxes"] for answer in golden.answers)
    for data, expected in zip(golden.inputs, golden.answers, strict=True):
        (actual,) = handler.predict([Instance(body=data, fields={}, params={})], reloaded)
        assert not isinstance(actual, Exception)
        report = handler.compare(expected, actual)
        assert report.passed
        assert max(report.differences.values()) < 0.01


def test_the_paper_s_network_has_its_layers_and_output():
    with torch.device("meta"):
        network = YoloV1Network(YoloV1Config(), num_classes=20)
        raw = network(torch.empty(2, 3, 448, 448))

    assert raw.shape == (2, 7, 7, 30)
    assert sum(isinstance(part, nn.Conv2d) for part in network.modules()) == 24
    assert sum(isinstance(part, nn.Linear) for part in network.modules()) == 2


@pytest.mark.parametrize(
    ("name", "config"),
    [
        pytest.param(
            "detection/yolo_v1",
            YoloV1Config.model_validate({"data": {"image_size": 128, "batch_size": 2}, "model": {"grid": 2}}),
            id="yolo_v1 at 128 px",
        ),
        pytest.param(
            "detection/ssd", SsdConfig.model_validate({"data": {"image_size": 300, "batch_size": 1}}), id="ssd300"
        ),
    ],
)
def test_the_full_network_takes_a_step(name, config, scenes):
    recipe = CATALOG[name].load_recipe()(config, scenes)
    state = recipe.build(CPU)

    scalars = recipe.train_step(state, recipe.to_device(recipe.train_batches().batch(0), CPU), CPU)

    assert torch.isfinite(scalars["train/loss"])


def test_the_paper_s_ssd_has_8732_boxes():
    with torch.device("meta"):
        network = CATALOG["detection/ssd"].load_recipe().build_network(SsdConfig(), 20)  # type: ignore[attr-defined]
        logits, offsets = network(torch.empty(1, 3, 300, 300))

    assert logits.shape == (1, 8732, 21)
    assert offsets.shape == (1, 8732, 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_cast_to_bf16_still_places_boxes_exactly(name, scenes):
    recipe = recipe_of(name, scenes)
    network = recipe.build(CPU).modules["network"].eval()
    raw = network(torch.randn(1, 3, 64, 64))

    boxes, _ = network.decode(raw)
    cast, _ = network.to(torch.bfloat16).decode(raw)

    assert torch.equal(cast, boxes)


def test_ssd_counts_three_hard_negatives_for_each_positive():
    logits = torch.zeros(1, 6, 2)
    logits[0, :, 1] = torch.tensor([0.0, 5.0, 4.0, 3.0, 2.0, 1.0])  # anchor 0 is positive, 5 the easiest negative
    label = torch.tensor([[1, 0, 0, 0, 0, 0]])
    offsets = torch.zeros(1, 6, 4)

    parts = ssd_loss((logits, offsets + 2.0), label, offsets, config=SsdConfig().loss)

    expected = nn.functional.cross_entropy(logits[0, :4], label[0, :4], reduction="sum")
    torch.testing.assert_close(parts["class"], expected)
    assert float(parts["box"]) == pytest.approx(4 * 1.5)


def test_ssd_without_truths_has_no_loss():
    parts = ssd_loss(
        (torch.randn(2, 5, 3), torch.randn(2, 5, 4)),
        torch.zeros(2, 5, dtype=torch.int64),
        torch.zeros(2, 5, 4),
        config=SsdConfig().loss,
    )

    assert float(parts["class"]) == float(parts["box"]) == 0


def test_ssd_targets_are_the_truths_of_their_anchors():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [40.0, 40.0, 50.0, 50.0]])
    truth = torch.tensor([[[21.0, 20.0, 31.0, 30.0], [0.0, 0.0, 0.0, 0.0]]])

    label, box = assign_targets(anchors, truth, torch.tensor([[7, 0]]), config=SsdConfig().loss)

    assert label.tolist() == [[0, 7, 0]]
    assert box[0, 1].tolist() == [21.0, 20.0, 31.0, 30.0]


def test_a_batch_on_the_device_is_float_and_channels_last(scenes):
    recipe = recipe_of("detection/yolo_v1", scenes)

    batch: Batch = recipe.to_device(recipe.train_batches().batch(0), CPU)

    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
