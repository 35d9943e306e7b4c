"""What happens between two steps, in order: log, evaluate, sample, checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workers.engine.artifacts import Artifacts
from workers.engine.checkpointing import Checkpointing
from workers.engine.evaluation import Evaluation, Sampling
from workers.engine.loop import StopReason
from workers.engine.scalars import History, ScalarWindow
from workers.engine.steplog import StepLog
from workers.engine.stop import StopSignal
from workers.engine.training import Training


class Follower:
    """The hooks of a process that trains along: what there is to decide, save and tell, the leader does."""

    def should_stop(self) -> StopReason | None:
        return None

    def after_step(self, scalars: Mapping[str, Tensor]) -> None:
        pass


class Hooks:
    """The hooks of one attempt."""

    def __init__(self, training: Training, stop: StopSignal, *, resumed: Mapping[str, Any] | None) -> None:
        self._training = training
        self._stop = stop
        self._start = training.clock()
        self._earlier_seconds = float(resumed["trained_seconds"]) if resumed else 0.0
        self.artifacts = Artifacts(training.plan.spool_dir, training.frames)
        window = ScalarWindow(training.placement.device)
        if resumed:
            window.restore(resumed["window"])
        history = History(resumed["history"] if resumed else None)
        self.log = StepLog(training, self.artifacts, window=window, history=history)
        self.evaluation = Evaluation(training, self.log)
        self._sampling = Sampling(training, self.artifacts, self.log)
        self._checkpointing = Checkpointing(training, self.log, self.evaluation, trained_seconds=self._trained_seconds)

    def should_stop(self) -> StopReason | None:
        if self._stop.is_set():
            return StopReason.STOPPED
        max_seconds = self._training.config.limits.max_seconds
        is_over = max_seconds is not None and self._trained_seconds() >= max_seconds
        return StopReason.TIMEOUT if is_over else None

    def after_step(self, scalars: Mapping[str, Tensor]) -> None:
        self.log.after_step(scalars)
        if self.evaluation.is_due:
            self.evaluation.evaluate()
        if self._sampling.is_due:
            self._sampling.sample()
        # Last, so that the checkpoint carries the figure of its own step.
        self._checkpointing.after_step()

    def finish(self, reason: StopReason) -> None:
        """Leave the state on disk, evaluated if it is the last one."""
        if reason is StopReason.COMPLETED and self.evaluation.step != self._training.state.step:
            self.evaluation.evaluate()
        self._checkpointing.finish()
        self.log.save_events()

    def close(self) -> None:
        self._checkpointing.close()
        self.log.close()

    def _trained_seconds(self) -> float:
        return self._earlier_seconds + self._training.clock() - self._start
