"""The step frames of an attempt: scalars, speed and memory, also as a TensorBoard file and as curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor

from services.core.clock import MonotonicClock
from workers.engine import memory
from workers.engine.artifacts import Artifacts
from workers.engine.frames import FrameKind
from workers.engine.scalars import History, ScalarWindow
from workers.engine.tensorboard import EventFile
from workers.engine.training import Training

ALIVE_SECONDS = 1.0


class StepLog:
    """Reads scalars from the device at log steps only; the first step of an attempt is always told."""

    def __init__(self, training: Training, artifacts: Artifacts, *, window: ScalarWindow, history: History) -> None:
        self.window = window
        self.history = history
        self._training = training
        self._artifacts = artifacts
        self._timer = _StepTimer(training.clock)
        self._static_bytes = memory.static_estimate_bytes(training.state)
        self._is_first = True
        self._told_at = training.clock()
        name = f"events.out.tfevents.{training.plan.token:05d}.{training.plan.job_id}"
        self._events = EventFile(training.plan.spool_dir / "tensorboard" / name)

    def after_step(self, scalars: Mapping[str, Tensor]) -> None:
        """Take in a step; tell of it when it is due.

        Raises:
            NonFiniteLoss: a scalar is not finite.
        """
        step = self._training.state.step
        self.window.add(scalars, step=step)
        self._timer.after_step()
        is_due = step == 1 or step % self._training.config.limits.log_every_steps == 0 or self._training.is_last_step
        if is_due or self._is_first:
            self._tell(step, is_due=is_due)
        elif self._training.clock() - self._told_at >= ALIVE_SECONDS:
            self._training.frames.write(FrameKind.ALIVE, step=step)
            self._told_at = self._training.clock()
        self._is_first = False

    def add_figures(self, values: Mapping[str, float]) -> None:
        """Record figures that are not of a training step, such as an evaluation's."""
        step = self._training.state.step
        self.history.add(step, values)
        self._events.add(step, values)

    def pause(self) -> AbstractContextManager[None]:
        """Return a context whose time counts for no step."""
        return self._timer.pause()

    def save_events(self) -> None:
        """Leave the event file as it is now as an artifact, unless the last one holds all of it."""
        if self._events.is_saved:
            return
        self._artifacts.save(
            self._events.path.name,
            self._events.snapshot(),
            kind="tensorboard",
            content_type="application/octet-stream",
            step=self._training.state.step,
        )

    def close(self) -> None:
        self._events.close()

    def _tell(self, step: int, *, is_due: bool) -> None:
        scalars = self.window.read(step=step)
        step_seconds = self._timer.read()
        samples_s = self._training.source.batch_size / step_seconds
        used = memory.measure(self._training.placement.device, self._static_bytes)
        self._training.frames.write(
            FrameKind.STEP,
            step=step,
            total=self._training.total_steps,
            epoch=step / self._training.source.steps_per_epoch,
            scalars=scalars,
            step_ms=1000 * step_seconds,
            samples_s=samples_s,
            mem=used,
        )
        self._told_at = self._training.clock()
        # The first step after a resume is told besides: the window goes on as if nobody had looked.
        if is_due:
            self.window.reset()
            self.history.add(step, scalars)
            speed = {"perf/step_ms": 1000 * step_seconds, "perf/samples_s": samples_s}
            self._events.add(step, scalars | speed | {f"mem/{name}": value for name, value in used.items()})


class _StepTimer:
    """Mean wall time of steps since it was last read, without pauses."""

    def __init__(self, clock: MonotonicClock) -> None:
        self._clock = clock
        self._start = clock()
        self._paused_seconds = 0.0
        self._num_steps = 0

    def after_step(self) -> None:
        self._num_steps += 1

    @contextmanager
    def pause(self) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self._paused_seconds += self._clock() - start

    def read(self) -> float:
        now = self._clock()
        seconds = (now - self._start - self._paused_seconds) / max(1, self._num_steps)
        self._start, self._paused_seconds, self._num_steps = now, 0.0, 0
        return max(seconds, 1e-9)
