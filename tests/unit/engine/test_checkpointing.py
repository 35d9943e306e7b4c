from __future__ import annotations

import threading
from pathlib import Path

import torch

from tests.builders.toy_recipe import toy_config, toy_recipe
from tests.builders.training import FrameLog, StopAtStep
from workers.engine.frames import FrameKind
from workers.engine.hooks import Hooks
from workers.engine.placement import Decision
from workers.engine.plan import TrainPlan
from workers.engine.training import Training
from workers.families.base import Placement


def test_a_checkpoint_that_finds_the_writer_busy_comes_at_a_later_step_edge(tmp_path: Path) -> None:
    log, gate = FrameLog(), threading.Event()
    training = make_training(tmp_path, log)
    hooks = Hooks(training, StopAtStep(), resumed=None)
    step(training, hooks)
    checkpointer = hooks._checkpointing._checkpointer
    checkpointer.wait()
    checkpointer._pending = checkpointer._writer.submit(gate.wait, 30)

    step(training, hooks)
    step(training, hooks)
    gate.set()
    checkpointer._pending.result()
    step(training, hooks)
    hooks.close()
    log.close()

    warnings = [frame["text"] for frame in log.of(FrameKind.LOG)]
    assert [frame["step"] for frame in log.of(FrameKind.CHECKPOINT)] == [4]
    assert len(warnings) == 1
    assert "step 2" in warnings[0]
    assert "put off" in warnings[0]


def make_training(directory: Path, log: FrameLog) -> Training:
    limits = {"checkpoint_every_steps": 2, "evaluate_every_steps": 50, "sample_every_steps": 50, "max_steps": 100}
    recipe = toy_recipe(limits=limits)
    placement = Placement(torch.device("cpu"), None, torch.contiguous_format)
    plan = TrainPlan(
        job_id="job",
        attempt=1,
        token=1,
        recipe="toy/patterns",
        config=toy_config(limits=limits),
        dataset_dir=directory,
        cache_dir=directory,
        spool_dir=directory / "spool",
    )
    decision = Decision("fp32", False, "config")
    return Training(plan, recipe, recipe.train_batches(), decision, placement, recipe.build(placement), log.writer)


def step(training: Training, hooks: Hooks) -> None:
    batch = training.source.batch(training.state.step)
    scalars = training.recipe.train_step(training.state, batch, training.placement)
    training.state.step += 1
    hooks.after_step(scalars)
