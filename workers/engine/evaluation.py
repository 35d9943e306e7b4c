"""Evaluations and sample pictures: beside training, on the state as it is, and without a trace in it."""

from __future__ import annotations

import csv
import io
import math

from workers.engine.artifacts import Artifacts
from workers.engine.frames import FrameKind
from workers.engine.steplog import StepLog
from workers.engine.training import Training
from workers.families.base import Table


class Evaluation:
    """Evaluates when due and remembers the figures of the latest time."""

    def __init__(self, training: Training, log: StepLog) -> None:
        self._training = training
        self._log = log
        self.metrics: dict[str, float] = {}
        self.judge: dict[str, str] = {}
        self.step = -1

    @property
    def is_due(self) -> bool:
        is_regular = self._training.state.step % self._training.config.limits.evaluate_every_steps == 0
        return is_regular or self._training.is_last_step

    def evaluate(self) -> None:
        step = self._training.state.step
        with self._log.pause(), self._training.aside("evaluating"):
            metrics = self._training.recipe.evaluate(self._training.state, self._training.own_placement)
        self.metrics, self.step = {name: float(value) for name, value in metrics.items()}, step
        self._log.add_figures(self.metrics)
        self._training.frames.write(FrameKind.EVAL, step=step, metrics=self.metrics)
        self._tell_judge()
        for text in self._training.recipe.warnings(self.metrics):
            self._training.frames.write(FrameKind.LOG, level="warning", text=text)

    def _tell_judge(self) -> None:
        judge = dict(self._training.recipe.judge())
        if judge != self.judge:
            named = ", ".join(f"{name} {digest}" for name, digest in judge.items())
            text = f"figures are judged by {named}: only those of the same digest can be compared"
            self._training.frames.write(FrameKind.LOG, level="info", text=text)
        self.judge = judge

    def metric_at(self, step: int) -> float | None:
        """Return the recipe's own figure if this very state was evaluated and gave a number."""
        value = self.metrics.get(self._training.recipe.metric) if step == self.step else None
        return value if value is not None and math.isfinite(value) else None


class Sampling:
    """Draws pictures when due."""

    def __init__(self, training: Training, artifacts: Artifacts, log: StepLog) -> None:
        self._training = training
        self._artifacts = artifacts
        self._log = log

    @property
    def is_due(self) -> bool:
        is_regular = self._training.state.step % self._training.config.limits.sample_every_steps == 0
        return is_regular or self._training.is_last_step

    def sample(self) -> None:
        step = self._training.state.step
        with self._log.pause(), self._training.aside("evaluating", "samples"):
            pictures = self._training.recipe.sample(self._training.state, self._training.own_placement)
            tables = self._training.recipe.tables(self._training.state, self._training.own_placement)
        for picture in pictures:
            name = f"{picture.name}-{step:010d}.png"
            self._artifacts.save(name, picture.png, kind="samples", content_type="image/png", step=step)
        for table in tables:
            self._artifacts.save(
                f"{table.name}-{step:010d}.csv", _csv(table), kind="table", content_type="text/csv", step=step
            )


def _csv(table: Table) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((table.columns, *table.rows))
    return text.getvalue().encode()
