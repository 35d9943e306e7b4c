from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.builders.kernels import WrongGradients
from tests.builders.toy_recipe import Toy, ToyBatch, toy_recipe
from tests.builders.training import StopAtStep
from workers.engine import placement as placements
from workers.engine import rng
from workers.engine.placement import Decision, choices, default, settled
from workers.engine.probe import ProbeCache, cache_key, cached_probe, probe
from workers.families.base import Placement, TrainState
from workers.families.config import Runtime

CPU = torch.device("cpu")
GPU = torch.device("cuda")
FREE = {"precision": "auto", "channels_last": "auto"}


def probed(recipe: Toy, *, stop_at: int | None = None) -> Decision:
    return probe(recipe, recipe.train_batches(), device=CPU, is_compiled=False, stop=StopAtStep(stop_at))


@pytest.fixture
def bf16_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that computes bf16, or so it says: where this machine emulates it, the steps are slow and right."""
    monkeypatch.setattr(placements, "has_fast_bf16", lambda: True)


@pytest.fixture
def old_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placements, "has_fast_bf16", lambda: False)


def test_a_probe_moves_no_generator_and_no_weight() -> None:
    recipe = toy_recipe(runtime=FREE)
    rng.seed_all(11)
    state = recipe.build(Placement(CPU, None, torch.contiguous_format))
    weights = copy.deepcopy(state.modules["network"].state_dict())
    before = rng.capture()

    decision = probed(recipe)

    assert decision.source == "probe"
    assert rng.capture() == before
    assert all(torch.equal(value, weights[name]) for name, value in state.modules["network"].state_dict().items())


@pytest.mark.usefixtures("bf16_processor")
def test_every_candidate_is_timed_and_compared_with_the_plainest() -> None:
    decision = probed(toy_recipe(runtime=FREE))

    rows = [(row["precision"], row["is_channels_last"]) for row in decision.candidates]
    assert rows == [("fp32", False), ("bf16", False), ("fp32", True), ("bf16", True)]
    assert decision.candidates[0]["loss_distance"] == 0
    assert all(row["step_ms"] > 0 for row in decision.candidates)
    assert decision.left_out == ()


@pytest.mark.usefixtures("old_processor")
def test_bf16_is_not_tried_where_the_processor_only_emulates_it() -> None:
    SlowInBf16.slow_steps = 0

    decision = probed(SlowInBf16(toy_recipe(runtime=FREE).config, Path()))

    assert SlowInBf16.slow_steps == 0
    assert [(row["precision"], row["is_channels_last"]) for row in decision.candidates] == [
        ("fp32", False),
        ("fp32", True),
    ]
    assert decision.left_out == ({"precision": "bf16", "reason": "this processor has no bf16 instructions"},)
    assert Decision.from_json(decision.to_json(), source="cache").left_out == decision.left_out


class NoSteps(Toy):
    """Fails at its first step."""

    def train_step(self, state: TrainState, batch: ToyBatch, placement: Placement) -> dict[str, Tensor]:
        raise AssertionError("a step was done")


@pytest.mark.usefixtures("old_processor")
def test_a_single_choice_costs_no_step() -> None:
    recipe = NoSteps(toy_recipe(runtime={"precision": "auto", "channels_last": "on"}).config, Path())

    decision = probed(recipe)

    assert (decision.precision, decision.is_channels_last, decision.source) == ("fp32", True, "probe")


class WrongInBf16(Toy):
    """Fast and wrong in bf16, slow and right in fp32."""

    def train_step(self, state: TrainState, batch: ToyBatch, placement: Placement) -> dict[str, Tensor]:
        scalars = super().train_step(state, batch, placement)
        if placement.autocast_dtype is not None:
            return {**scalars, "train/loss": scalars["train/loss"] * 1.5}
        for _ in range(20):
            super().train_step(state, batch, placement)
        return scalars


@pytest.mark.usefixtures("bf16_processor")
def test_a_faster_candidate_with_other_losses_is_not_chosen() -> None:
    recipe = WrongInBf16(toy_recipe(runtime=FREE, model={"dropout": 0.0}).config, Path())

    decision = probed(recipe)

    rows = {(row["precision"], row["is_channels_last"]): row for row in decision.candidates}
    assert rows["bf16", False]["step_ms"] < rows["fp32", False]["step_ms"]
    assert not rows["bf16", False]["is_same"]
    assert decision.precision == "fp32"


class SlowInBf16(Toy):
    """Right in bf16, but where the hardware has none of it; counts the steps done so."""

    slow_steps = 0

    def train_step(self, state: TrainState, batch: ToyBatch, placement: Placement) -> dict[str, Tensor]:
        scalars = super().train_step(state, batch, placement)
        if placement.autocast_dtype is not None:
            SlowInBf16.slow_steps += 1
            # Beyond what the very first step of all takes, whatever is set up in it.
            time.sleep(1.0)
        return scalars


@pytest.mark.usefixtures("bf16_processor")
def test_a_hopelessly_slow_candidate_is_given_up_after_its_first_step() -> None:
    SlowInBf16.slow_steps = 0
    recipe = SlowInBf16(toy_recipe(runtime=FREE).config, Path())
    probed(toy_recipe(runtime=FREE))

    decision = probed(recipe)

    assert SlowInBf16.slow_steps == 2, "one step in each memory format"
    rows = {(row["precision"], row["is_channels_last"]): row for row in decision.candidates}
    assert rows["bf16", True]["step_ms"] > 1000
    assert decision.precision == "fp32"


def test_a_decision_is_made_once_for_a_recipe_and_device(tmp_path: Path) -> None:
    cache, calls = ProbeCache(tmp_path), []

    def run() -> Decision:
        calls.append(1)
        return Decision("bf16", True, "probe")

    first, second = cached_probe(cache, "key", run), cached_probe(cache, "key", run)

    assert len(calls) == 1
    assert (first.source, second.source) == ("probe", "cache")
    assert (second.precision, second.is_channels_last) == ("bf16", True)


def test_a_probe_asked_to_stop_ends_and_is_not_remembered(tmp_path: Path) -> None:
    cache = ProbeCache(tmp_path)

    decision = cached_probe(cache, "key", lambda: probed(toy_recipe(runtime=FREE), stop_at=3))

    assert decision == Decision("fp32", False, "default")
    assert cache.get("key") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"precision": "fp8", "is_channels_last": true}'])
def test_a_damaged_cache_entry_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "precision").mkdir()
    (tmp_path / "precision" / "key.json").write_text(content)

    assert ProbeCache(tmp_path).get("key") is None


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        pytest.param({"limits": {"max_steps": 77}}, True, id="length does not matter"),
        pytest.param({"runtime": {**FREE, "seed": 5}}, True, id="nor does the seed"),
        pytest.param({"model": {"width": 16}}, False, id="the network does"),
    ],
)
def test_the_cache_key_covers_what_decides_speed(change: dict[str, Any], is_same: bool) -> None:
    first, second = toy_recipe(runtime=FREE), toy_recipe(**{"runtime": FREE, **change})

    keys = [cache_key("toy/patterns", recipe.config, batch_size=8, device=CPU) for recipe in (first, second)]

    assert (keys[0] == keys[1]) is is_same


def test_a_config_that_leaves_nothing_open_is_not_probed() -> None:
    assert settled(Runtime(precision="bf16", channels_last="on")) == Decision("bf16", True, "config")
    assert settled(Runtime(precision="auto", channels_last="on")) is None
    assert default(Runtime(precision="auto", channels_last="on")) == Decision("fp32", True, "default")


@pytest.mark.parametrize(
    ("runtime", "has_convolutions", "expected"),
    [
        pytest.param(Runtime(), True, 4, id="everything is open"),
        pytest.param(Runtime(), False, 2, id="no convolutions, no formats"),
        pytest.param(Runtime(precision="fp32"), True, 2, id="only the format is open"),
        pytest.param(Runtime(channels_last="on"), True, 2, id="only the precision is open"),
    ],
)
@pytest.mark.usefixtures("bf16_processor")
def test_choices_are_what_the_config_leaves_open(runtime: Runtime, has_convolutions: bool, expected: int) -> None:
    assert len(choices(runtime, CPU, has_convolutions=has_convolutions)) == expected


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        pytest.param("auto", CPU, {"fp32"}, id="a processor without it"),
        pytest.param("auto", GPU, {"fp32", "bf16"}, id="the processor beside a GPU says nothing"),
        pytest.param("bf16", CPU, {"bf16"}, id="the config insists on it"),
    ],
)
@pytest.mark.usefixtures("old_processor")
def test_emulated_bf16_is_no_choice_unless_the_config_names_it(
    precision: Literal["auto", "bf16"], device: torch.device, expected: set[str]
) -> None:
    found = choices(Runtime(precision=precision), device, has_convolutions=True)

    assert {choice.precision for choice in found} == expected
    assert all(bool(choice.left_out) is (expected == {"fp32"}) for choice in found)


class SlowInFp32(Toy):
    """Right in both, where kernels are; slow in fp32."""

    def train_step(self, state: TrainState, batch: ToyBatch, placement: Placement) -> dict[str, Tensor]:
        if placement.autocast_dtype is None:
            time.sleep(0.2)
        return super().train_step(state, batch, placement)


@pytest.mark.usefixtures("bf16_processor")
def test_a_faster_candidate_with_wrong_kernels_is_not_chosen() -> None:
    recipe = SlowInFp32(toy_recipe(runtime=FREE).config, Path())
    assert probed(recipe).precision == "bf16"

    with WrongGradients():
        decision = probed(recipe)

    rows = {(row["precision"], row["is_channels_last"]): row for row in decision.candidates}
    assert decision.precision == "fp32"
    assert "convolution_backward" in rows["bf16", False]["wrong_kernels"][0]
    assert not rows["bf16", False]["is_same"]
    assert rows["fp32", False]["wrong_kernels"] == []
