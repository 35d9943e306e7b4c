from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto.event_pb2 import Event

from services.core.errors import RequestInvalid
from tests.builders.fault_config import CATALOG, NAME
from tests.builders.fault_recipe import pattern_config
from tests.builders.kernels import WrongGradients
from tests.builders.toy_recipe import TOY_CATALOG, Toy, ToyConfig, ToyHandler, toy_config
from tests.builders.training import FrameLog, Outcome, attempt
from workers.engine import run
from workers.engine.errors import ConfigUnbuildable
from workers.engine.frames import FrameKind
from workers.engine.tensorfile import read_tensors
from workers.families.base import Instance, Placement, Recipe, ServingSpec, TrainState
from workers.families.catalog import Entry


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    outcome = attempt(tmp_path_factory.mktemp("finished"), toy_config(limits={"sample_every_steps": 6}))
    assert outcome.error is None
    return outcome


def test_every_cadence_is_kept(finished: Outcome) -> None:
    kinds = (FrameKind.STEP, FrameKind.EVAL, FrameKind.CHECKPOINT)
    steps = {kind: [frame["step"] for frame in finished.log.of(kind)] for kind in kinds}

    assert steps[FrameKind.STEP] == [1, 3, 6, 9, 12]
    assert steps[FrameKind.EVAL] == [4, 8, 12]
    assert steps[FrameKind.CHECKPOINT] == [4, 8, 12]
    samples = [frame["step"] for frame in finished.log.of(FrameKind.ARTIFACT) if frame["kind"] == "samples"]
    assert samples == [6, 12]


def test_a_checkpoint_carries_the_figure_of_its_own_step(finished: Outcome) -> None:
    figures = {frame["step"]: frame["metrics"]["eval/accuracy"] for frame in finished.log.of(FrameKind.EVAL)}

    for frame in finished.log.of(FrameKind.CHECKPOINT):
        assert frame["metric_name"] == "eval/accuracy"
        assert frame["metric"] == figures[frame["step"]]


def test_step_frames_tell_speed_progress_and_memory(finished: Outcome) -> None:
    frame = finished.log.of(FrameKind.STEP)[-1]

    assert (frame["step"], frame["total"]) == (12, 12)
    assert frame["epoch"] == pytest.approx(12 / 7)
    assert frame["samples_s"] == pytest.approx(8000 / frame["step_ms"])
    assert frame["mem"]["peak_bytes"] >= frame["mem"]["alloc_bytes"] > frame["mem"]["static_estimate_bytes"] > 0


def test_artifacts_are_whole_files_where_the_frames_say(finished: Outcome) -> None:
    artifacts = finished.log.of(FrameKind.ARTIFACT)

    assert {frame["kind"] for frame in artifacts} == {"samples", "curves", "tensorboard"}
    for frame in artifacts:
        data = Path(frame["path"]).read_bytes()
        assert data
        assert data.startswith(b"\x89PNG") == (frame["content_type"] == "image/png")


def test_the_tensorboard_file_holds_the_losses_of_the_frames(finished: Outcome) -> None:
    path = next(f["path"] for f in reversed(finished.log.of(FrameKind.ARTIFACT)) if f["kind"] == "tensorboard")
    data, events, start = Path(path).read_bytes(), [], 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 8], "little")
        events.append(Event.FromString(data[start + 12 : start + 12 + length]))
        start += length + 16

    losses = {e.step: v.simple_value for e in events for v in e.summary.value if v.tag == "train/loss"}

    assert losses == pytest.approx(finished.losses())


def test_the_bundle_answers_its_golden_inputs(finished: Outcome) -> None:
    bundle = Path(finished.final["bundle_dir"])
    document = json.loads((bundle / "bundle.json").read_bytes())
    spec = ServingSpec(tuple(document["spec"]["input_shape"]), document["spec"]["constants"])

    network = Toy.load_serving_module(ToyConfig.model_validate(document["config"]), spec)
    network.load_state_dict(read_tensors(bundle / "weights.safetensors"))
    inputs = [path.read_bytes() for path in sorted((bundle / "golden").glob("*.png"))]
    answers = ToyHandler(spec).predict([Instance(body, {}, {}) for body in inputs], network)

    assert answers == json.loads((bundle / "golden" / "answers.json").read_bytes())
    assert (document["recipe"], document["family"], document["step"]) == ("toy/patterns", "toy", 12)
    assert document["metrics"] == finished.final["metrics"]


def test_a_checkpoint_packaged_later_gives_the_bundle_of_the_training(finished: Outcome, tmp_path: Path) -> None:
    plan = {
        "mode": "package_checkpoint",
        "recipe": "toy/patterns",
        "config": toy_config(limits={"sample_every_steps": 6}),
        "dataset_dir": str(tmp_path),
        "checkpoint_dir": str(finished.checkpoint_dir(12)),
        "bundle_dir": str(tmp_path / "bundle"),
    }
    log = FrameLog()

    run.package_checkpoint(plan, log.writer, catalog=TOY_CATALOG)
    log.close()

    made, expected = tmp_path / "bundle", Path(finished.final["bundle_dir"])
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(expected)) for path in expected.rglob("*") if path.is_file())
    assert all((made / name).read_bytes() == (expected / name).read_bytes() for name in names)
    assert log.of(FrameKind.FINAL)[0]["bundle_dir"] == str(made)


def test_a_request_to_stop_is_honoured_at_the_step_edge_with_a_checkpoint(tmp_path: Path) -> None:
    outcome = attempt(tmp_path, toy_config(), stop_at=6)

    assert outcome.final["reason"] == "stopped"
    assert outcome.final["step"] == 6
    assert outcome.final["bundle_dir"] is None
    assert outcome.checkpoint_steps() == [4, 6]


def test_a_stop_before_the_first_step_leaves_no_checkpoint(tmp_path: Path) -> None:
    outcome = attempt(tmp_path, toy_config(), stop_at=0)

    assert outcome.final["step"] == 0
    assert outcome.checkpoint_steps() == []


def test_the_time_limit_keeps_a_checkpoint_and_counts_over_attempts(tmp_path: Path) -> None:
    # Without checkpoints by step: one written just before the time is over would know of that much less of it.
    every = dict.fromkeys(("evaluate_every_steps", "checkpoint_every_steps"), 10**6)
    endless = toy_config(limits={"max_steps": 10**6, "max_seconds": 0.5, **every})
    first = attempt(tmp_path, endless)

    step = first.final["step"]
    second = attempt(tmp_path, endless, resume_dir=first.checkpoint_dir(step))

    assert first.final["reason"] == second.final["reason"] == "timeout"
    assert second.final["step"] == step


def test_a_checkpoint_by_time_comes_between_those_by_step(tmp_path: Path) -> None:
    limits = {"checkpoint_every_steps": 1000, "checkpoint_every_seconds": 1e-6, "max_steps": 3}

    outcome = attempt(tmp_path, toy_config(limits=limits))

    assert outcome.checkpoint_steps() == [1, 2, 3]


def test_a_wrong_config_and_an_unknown_recipe_are_refused(tmp_path: Path) -> None:
    unknown = attempt(tmp_path, toy_config(), recipe="toy/none")
    elsewhere = attempt(tmp_path, toy_config(runtime={"device": "cuda"}))

    assert isinstance(unknown.error, RequestInvalid)
    assert isinstance(elsewhere.error, RequestInvalid)
    assert elsewhere.error.violations[0].field == "config.runtime.device"


class BrokenEntry(Entry):
    def load_recipe(self) -> type[Recipe[Any, Any]]:
        class Broken(Toy):
            def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
                raise ZeroDivisionError

        return Broken


def test_an_error_between_steps_says_at_which(tmp_path: Path) -> None:
    base = TOY_CATALOG["toy/patterns"]
    entry = BrokenEntry(base.config, base.recipe, base.handler, base.summary)

    outcome = attempt(tmp_path, toy_config(), catalog={"toy/patterns": entry})

    assert isinstance(outcome.error, ZeroDivisionError)
    assert outcome.error.step == 4


def test_a_config_that_makes_no_network_is_the_config_s_fault(tmp_path: Path) -> None:
    config = pattern_config(faults={"how": "unbuildable", "where": "build"})

    outcome = attempt(tmp_path, config, recipe=NAME, catalog=CATALOG)

    assert isinstance(outcome.error, ConfigUnbuildable)
    assert "divisible by groups" in str(outcome.error)


def test_the_event_file_is_announced_once_for_what_it_holds(tmp_path: Path) -> None:
    outcome = attempt(tmp_path, toy_config())

    names = [(frame["name"], frame["step"]) for frame in outcome.log.of(FrameKind.ARTIFACT)]
    assert len(names) == len(set(names))
    assert any(name.startswith("events.out.tfevents.00001.") for name, _ in names)


def test_bf16_that_a_config_insists_on_is_warned_of_where_kernels_are_wrong(tmp_path: Path) -> None:
    def warnings(directory: str, **runtime: Any) -> list[str]:
        config = toy_config(runtime={"channels_last": "off", **runtime}, limits={"max_steps": 1})
        outcome = attempt(tmp_path / directory, config)
        assert outcome.error is None
        return [frame["text"] for frame in outcome.log.of(FrameKind.LOG) if frame["level"] == "warning"]

    with WrongGradients():
        (text,) = warnings("wrong", precision="bf16")
        assert warnings("open", precision="bf16", channels_last="auto") == [text]
        assert warnings("fp32", precision="fp32") == []

    assert text.startswith("this processor computes wrongly in bf16: aten.convolution_backward.default of (8, ")
    assert text.endswith("leave runtime.precision to 'auto' or set 'fp32'")
    assert warnings("right", precision="bf16") == []
