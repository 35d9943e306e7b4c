"""Scalars as a TensorBoard event file, without its writer's thread and without TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """The event file of one attempt, named by its token; attempts of a job in one directory show as one line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("wb")
        self._records = RecordWriter(self._file)
        self.is_saved = False
        """Whether nothing was added since the last snapshot."""
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def snapshot(self) -> bytes:
        """Return the file as it is now; the file itself goes on growing."""
        self._records.flush()
        self.is_saved = True
        return self.path.read_bytes()

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        self.is_saved = False
        self._records.write(event.SerializeToString())
