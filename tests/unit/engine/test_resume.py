from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.toy_recipe import TOY_CATALOG, ToyConfig, ToyModel, toy_config
from tests.builders.training import Outcome, attempt
from workers.engine.errors import CheckpointMismatch
from workers.engine.frames import FrameKind
from workers.engine.state import DOCUMENT

STEPS = 12
VOLATILE = {"trained_seconds", "environment", "decision"}


def digests(outcome: Outcome, step: int) -> dict[str, str]:
    (frame,) = [frame for frame in outcome.log.of(FrameKind.CHECKPOINT) if frame["step"] == step]
    return {file["name"]: file["sha256"] for file in frame["files"] if file["name"] != DOCUMENT}


def document(outcome: Outcome, step: int) -> dict[str, Any]:
    return {key: value for key, value in outcome.checkpoint(step).document.items() if key not in VOLATILE}


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def config(precision: str) -> dict[str, Any]:
    return toy_config(runtime={"precision": precision, "channels_last": "on"})


@pytest.fixture(scope="module")
def uninterrupted(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    outcome = attempt(tmp_path_factory.mktemp("straight"), config)
    assert outcome.error is None
    return outcome


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_job_stopped_at_any_step_and_resumed_ends_in_the_same_bits(
    uninterrupted: Outcome, config: dict[str, Any], tmp_path: Path, step: int
) -> None:
    stopped = attempt(tmp_path, config, stop_at=step)

    resumed = attempt(tmp_path, config, resume_dir=stopped.checkpoint_dir(step))

    assert stopped.final["reason"] == "stopped"
    assert resumed.final["reason"] == "completed"
    assert digests(resumed, STEPS) == digests(uninterrupted, STEPS)
    assert document(resumed, STEPS) == document(uninterrupted, STEPS)


def test_a_job_killed_many_times_ends_in_the_same_bits(
    uninterrupted: Outcome, config: dict[str, Any], tmp_path: Path
) -> None:
    draw = random.Random(5)
    outcome = attempt(tmp_path, config, stop_at=1)
    while outcome.final["reason"] == "stopped":
        step = outcome.final["step"]
        outcome = attempt(tmp_path, config, resume_dir=outcome.checkpoint_dir(step), stop_at=draw.randint(1, 3))

    assert digests(outcome, STEPS) == digests(uninterrupted, STEPS)


def test_evaluations_samples_and_checkpoints_leave_no_trace_in_training(
    uninterrupted: Outcome, config: dict[str, Any], tmp_path: Path
) -> None:
    cadences = {"evaluate_every_steps": 1, "sample_every_steps": 2, "checkpoint_every_steps": 5, "log_every_steps": 3}
    busy = attempt(tmp_path, {**config, "limits": {**config["limits"], **cadences}})

    assert digests(busy, STEPS) == digests(uninterrupted, STEPS)


def test_the_loss_curve_of_a_resumed_job_is_that_of_one_never_interrupted(
    uninterrupted: Outcome, config: dict[str, Any], tmp_path: Path
) -> None:
    stopped = attempt(tmp_path, config, stop_at=5)

    resumed = attempt(tmp_path, config, resume_dir=stopped.checkpoint_dir(5))

    straight = uninterrupted.losses()
    assert set(straight) == {1, 3, 6, 9, 12}
    assert stopped.losses().keys() >= {1, 3}
    assert resumed.losses() == {6: straight[6], 9: straight[9], 12: straight[12]}


def test_a_restored_state_equals_the_saved_one(uninterrupted: Outcome, config: dict[str, Any], tmp_path: Path) -> None:
    again = attempt(tmp_path, config, resume_dir=uninterrupted.checkpoint_dir(8), stop_at=0)

    assert again.final["step"] == 8
    assert again.checkpoint_steps() == []


def test_a_job_whose_last_step_was_saved_only_ends(
    uninterrupted: Outcome, config: dict[str, Any], tmp_path: Path
) -> None:
    again = attempt(tmp_path, config, resume_dir=uninterrupted.checkpoint_dir(STEPS))

    assert again.final["reason"] == "completed"
    assert again.final["metrics"] == uninterrupted.final["metrics"]
    weights = "bundle/weights.safetensors"
    assert (again.spool_dir / weights).read_bytes() == (uninterrupted.spool_dir / weights).read_bytes()


def test_another_config_cannot_resume(uninterrupted: Outcome, config: dict[str, Any], tmp_path: Path) -> None:
    other = {**config, "model": {**config["model"], "dropout": 0.5}}

    outcome = attempt(tmp_path, other, resume_dir=uninterrupted.checkpoint_dir(4))

    assert isinstance(outcome.error, CheckpointMismatch)


class LaterModel(ToyModel):
    depth: int = 1


class LaterConfig(ToyConfig):
    """The toy's config as a newer version has it: with one more field, whose default changes nothing."""

    model: LaterModel = LaterModel()


def test_a_job_that_runs_across_an_upgrade_resumes_from_its_checkpoints(
    uninterrupted: Outcome, config: dict[str, Any], tmp_path: Path
) -> None:
    later = {name: replace(entry, config=f"{__name__}:LaterConfig") for name, entry in TOY_CATALOG.items()}

    resumed = attempt(tmp_path, config, resume_dir=uninterrupted.checkpoint_dir(4), catalog=later)

    assert digests(resumed, STEPS) == digests(uninterrupted, STEPS)


def test_a_resume_keeps_the_precision_of_its_checkpoint(tmp_path: Path) -> None:
    free = toy_config(runtime={"precision": "auto", "channels_last": "auto"}, limits={"max_steps": 200})
    # The probe asks for a stop too, before each of its own steps.
    stopped = attempt(tmp_path, free, stop_at=30)

    resumed = attempt(tmp_path, free, resume_dir=stopped.checkpoint_dir(stopped.final["step"]), stop_at=1)

    (first,), (second,) = stopped.log.of(FrameKind.PRECISION), resumed.log.of(FrameKind.PRECISION)
    assert (first["source"], second["source"]) == ("probe", "checkpoint")
    assert (first["precision"], first["is_channels_last"]) == (second["precision"], second["is_channels_last"])


def test_training_leaves_the_process_as_it_was(config: dict[str, Any], tmp_path: Path) -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())

    attempt(tmp_path, config, stop_at=1)

    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
