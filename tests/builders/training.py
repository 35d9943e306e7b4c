"""Runs attempts of a recipe in this process and collects their frames."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.builders.toy_recipe import TOY_CATALOG
from workers.engine import checkpointing, run
from workers.engine.frames import Frame, FrameKind, FrameReader, FrameWriter
from workers.engine.plan import SourcePlan, TrainPlan
from workers.engine.state import Stored, read
from workers.families.catalog import Entry

_PATIENCE_SECONDS = 60.0


class StopAtStep:
    """Says stop when asked for the nth time, which is before step n; never says so for None."""

    def __init__(self, step: int | None = None) -> None:
        self._left = step

    def is_set(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0


class FrameLog:
    """A pipe with a thread at its far end that keeps every frame."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._read_fd, self._write_fd = os.pipe()
        self.writer = FrameWriter(self._write_fd)
        self._thread = threading.Thread(target=self._drain)
        self._thread.start()

    def of(self, kind: FrameKind) -> list[Mapping[str, Any]]:
        return [frame.fields for frame in self.frames if frame.kind is kind]

    def close(self) -> None:
        os.close(self._write_fd)
        self._thread.join()
        os.close(self._read_fd)

    def _drain(self) -> None:
        reader = FrameReader(self._read_fd)
        while not reader.is_closed:
            self.frames += reader.read(timeout_seconds=None)


@dataclass
class Outcome:
    """What an attempt left."""

    spool_dir: Path
    log: FrameLog
    error: Exception | None = None

    @property
    def final(self) -> Mapping[str, Any]:
        (frame,) = self.log.of(FrameKind.FINAL)
        return frame

    def checkpoint_dir(self, step: int) -> Path:
        return self.spool_dir / f"step-{step}.ready"

    def checkpoint(self, step: int) -> Stored:
        return read(self.checkpoint_dir(step))

    def checkpoint_steps(self) -> list[int]:
        return [frame["step"] for frame in self.log.of(FrameKind.CHECKPOINT)]

    def losses(self) -> dict[int, float]:
        return {frame["step"]: frame["scalars"]["train/loss"] for frame in self.log.of(FrameKind.STEP)}


def attempt(
    directory: Path,
    config: Mapping[str, Any],
    *,
    stop_at: int | None = None,
    resume_dir: Path | None = None,
    recipe: str = "toy/patterns",
    catalog: Mapping[str, Entry] = TOY_CATALOG,
    dataset_dir: Path = Path(),
    micro_batches: int = 1,
    source: SourcePlan | None = None,
) -> Outcome:
    """Train in this process; an error is returned in the outcome.

    Every checkpoint is written at its step, however slow the disk is.
    """
    number = len(list(directory.glob("attempt-*"))) + 1
    spool_dir = directory / f"attempt-{number}"
    plan = TrainPlan(
        job_id="job",
        attempt=number,
        token=number,
        recipe=recipe,
        config=dict(config),
        dataset_dir=dataset_dir,
        resume_dir=resume_dir,
        micro_batches=micro_batches,
        source=source,
        origin="" if source is None else source.name,
        cache_dir=directory / "cache",
        spool_dir=spool_dir,
    )
    spool_dir.mkdir(parents=True)
    log = FrameLog()
    outcome = Outcome(spool_dir, log)
    try:
        with mock.patch.object(checkpointing, "PATIENCE_SECONDS", _PATIENCE_SECONDS):
            run.train(plan, log.writer, StopAtStep(stop_at), catalog=catalog)
    except Exception as err:
        outcome.error = err
    finally:
        log.close()
    return outcome
