"""When a checkpoint is due, what goes into it besides the state, and how it is announced."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from workers.engine import state as train_state
from workers.engine.checkpoint import Checkpointer, Written
from workers.engine.evaluation import Evaluation
from workers.engine.frames import FrameKind
from workers.engine.placement import device_name
from workers.engine.steplog import StepLog
from workers.engine.training import Training

PATIENCE_SECONDS = 0.2
"""How long a due checkpoint waits for the one before it: enough to keep small networks at their steps."""


class Checkpointing:
    """Takes checkpoints by step and by time; one that finds the writer busy comes at a later step edge."""

    def __init__(
        self, training: Training, log: StepLog, evaluation: Evaluation, *, trained_seconds: Callable[[], float]
    ) -> None:
        self._training = training
        self._log = log
        self._evaluation = evaluation
        self._trained_seconds = trained_seconds
        self._metrics: dict[int, float | None] = {}
        self._last_step = training.state.step
        self._last_time = training.clock()
        self._is_put_off = False
        self._is_reserved = False
        self._identity = {
            "recipe": training.plan.recipe,
            "config_sha256": train_state.config_sha256(training.plan.recipe, training.plan.config),
            "decision": training.decision.to_json(),
            "environment": environment(training),
        }
        training.plan.spool_dir.mkdir(parents=True, exist_ok=True)
        self._checkpointer = Checkpointer(training.plan.spool_dir, self._announce)

    def after_step(self) -> None:
        """Take a checkpoint if one is due.

        Raises:
            NonFiniteLoss: this or an earlier state held something that is not finite; it was not saved.
            OSError: the disk does not take the checkpoint.
        """
        self._checkpointer.raise_failure()
        if self._is_due():
            with self._log.pause():
                self._take()
        elif not self._is_reserved:
            # Only now do the optimizers have their state.
            self._checkpointer.reserve(self._capture())
        self._is_reserved = True

    def finish(self) -> None:
        """Make sure that the state as it is now is on disk, unless no step was done since the last checkpoint."""
        self._checkpointer.wait()
        if self._training.state.step > self._last_step:
            self._submit()
            self._checkpointer.wait()

    def close(self) -> None:
        self._checkpointer.close()

    def _is_due(self) -> bool:
        limits = self._training.config.limits
        is_regular = self._training.state.step % limits.checkpoint_every_steps == 0 or self._training.is_last_step
        seconds = limits.checkpoint_every_seconds
        is_late = seconds is not None and self._training.clock() - self._last_time >= seconds
        return is_regular or is_late or self._is_put_off

    def _take(self) -> None:
        patience = None if self._training.is_last_step else PATIENCE_SECONDS
        is_free = self._checkpointer.wait(timeout_seconds=patience)
        if is_free:
            self._submit()
        elif not self._is_put_off:
            text = f"step {self._training.state.step}: the checkpoint before this one is still being written, put off"
            self._training.frames.write(FrameKind.LOG, level="warning", text=text)
        self._is_put_off = not is_free

    def _submit(self) -> None:
        step = self._training.state.step
        self._log.window.read(step=step)
        self._metrics[step] = self._evaluation.metric_at(step)
        self._checkpointer.submit(self._capture())
        self._log.save_events()
        self._last_step, self._last_time = step, self._training.clock()

    def _capture(self) -> train_state.Captured:
        extra: dict[str, Any] = {
            "window": self._log.window.to_json(),
            "history": self._log.history.curves,
            "trained_seconds": self._trained_seconds(),
            "metric": self._evaluation.metric_at(self._training.state.step),
            "metrics": self._evaluation.metrics if self._evaluation.step == self._training.state.step else {},
            "judge": self._evaluation.judge,
        }
        return train_state.capture(self._training.state, extra=self._identity | extra)

    def _announce(self, written: Written) -> None:
        self._training.frames.write(
            FrameKind.CHECKPOINT,
            step=written.step,
            path=str(written.path),
            metric=self._metrics.pop(written.step),
            metric_name=self._training.recipe.metric,
            stall_ms=1000 * written.stall_seconds,
            write_seconds=written.write_seconds,
            files=[asdict(file) for file in written.files],
        )


def environment(training: Training) -> dict[str, Any]:
    """Return what bit-exactness depends on outside the config."""
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda if training.placement.device.type == "cuda" else None,
        "python": platform.python_version(),
        "device": device_name(training.placement.device),
        "threads": torch.get_num_threads(),
        # Left out by those made before there could be more than one.
        "processes": None if training.parallel.crew.is_alone else training.parallel.crew.size,
    }
