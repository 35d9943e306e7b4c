"""What a trainer tells its supervisor: length-prefixed JSON frames over a pipe.

A frame is four bytes of big-endian length, then `{"kind": ..., "fields": {...}}`. Torch-free, because the
supervisor reads frames too. The reader trusts nothing: a length over the limit or a body that is no frame
raises `FrameInvalid`, and the supervisor then treats the child as crashed.
"""

from __future__ import annotations

import enum
import json
import math
import os
import select
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_FRAME_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")
_CHUNK_BYTES = 1 << 16
_CHUNKS_PER_READ = 64


class FrameKind(enum.StrEnum):
    """Every kind of frame; the fields of each are listed beside it."""

    PHASE = "phase"
    """phase (loading, building, probing, training, evaluating, exporting), detail"""
    ALIVE = "alive"
    """step; at most one a second, so that a supervisor can tell slow from stuck"""
    STEP = "step"
    """step, total, epoch, scalars, step_ms, samples_s, mem"""
    EVAL = "eval"
    """step, metrics"""
    PRECISION = "precision"
    """precision, is_channels_last, source (config, checkpoint, cache, probe, default), candidates, left_out"""
    CHECKPOINT = "checkpoint"
    """step, path, metric, metric_name, stall_ms, write_seconds, files"""
    ARTIFACT = "artifact"
    """name, path, kind, content_type, step"""
    LOG = "log"
    """level, text"""
    FINAL = "final"
    """reason (completed, stopped, timeout), step, metrics, bundle_dir"""
    FAILURE = "failure"
    """reason (a FailureReason), message, traceback, step, micro_batches (for the next attempt, or null), is_loader"""


class FrameInvalid(ValueError):
    """The bytes are no frame: the other side is broken, or is not ours."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a trainer."""

    kind: FrameKind
    fields: Mapping[str, Any]


class FrameWriter:
    """Writes frames to a pipe; safe to share between threads, and blocks while the pipe is full."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, kind: FrameKind, /, **fields: Any) -> None:
        """Send one frame whole. A number that is not finite goes out as null, since JSON has none.

        Raises:
            FrameInvalid: the frame is larger than a reader accepts.
            BrokenPipeError: nobody reads any more.
        """
        data = encode(Frame(kind, fields))
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[self._write_some(view) :]

    def _write_some(self, view: memoryview) -> int:
        try:
            return os.write(self._fd, view)
        except BlockingIOError:
            _poll(self._fd, select.POLLOUT, None)
            return 0


class FrameParser:
    """Turns bytes, cut anywhere, into frames."""

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max_frame_bytes = max_frame_bytes

    @property
    def is_mid_frame(self) -> bool:
        """True when the bytes so far end inside a frame, so that an end of file here means a cut message."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Add bytes and return the frames they complete.

        Raises:
            FrameInvalid: the stream cannot be read further.
        """
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while (end := self._frame_end(start)) is not None:
            frames.append(decode(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return frames

    def _frame_end(self, start: int) -> int | None:
        if len(self._buffer) < start + _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, start)
        if length > self._max_frame_bytes:
            raise FrameInvalid(f"a frame of {length} bytes is over the limit of {self._max_frame_bytes}")
        end = start + _LENGTH.size + int(length)
        return end if end <= len(self._buffer) else None


class FrameReader:
    """Reads frames from a pipe without ever blocking on a partial one."""

    def __init__(self, fd: int, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._parser = FrameParser(max_frame_bytes=max_frame_bytes)
        self.is_closed = False

    @property
    def is_cut(self) -> bool:
        """True when the writer ended in the middle of a frame."""
        return self.is_closed and self._parser.is_mid_frame

    def fileno(self) -> int:
        return self._fd

    def read(self, *, timeout_seconds: float | None = 0.0) -> list[Frame]:
        """Return the frames that are there, waiting up to the timeout (None: for ever) for the first bytes.

        An empty list means a timeout, a partial frame, or the end of the stream (`is_closed`).

        Raises:
            FrameInvalid: the stream cannot be read further.
        """
        if self.is_closed or not _poll(self._fd, select.POLLIN, timeout_seconds):
            return []
        frames: list[Frame] = []
        for _ in range(_CHUNKS_PER_READ):
            data = self._read_some()
            if data is None:
                break
            if not data:
                self.is_closed = True
                break
            frames += self._parser.feed(data)
        return frames

    def _read_some(self) -> bytes | None:
        try:
            return os.read(self._fd, _CHUNK_BYTES)
        except BlockingIOError:
            return None


def encode(frame: Frame) -> bytes:
    """Return a frame's bytes, length included.

    Raises:
        FrameInvalid: the frame is larger than a reader accepts.
    """
    body = json.dumps(
        {"kind": frame.kind.value, "fields": _finite(frame.fields)}, allow_nan=False, separators=(",", ":")
    ).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise FrameInvalid(f"a {frame.kind} frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Frame:
    """Return the frame of a body, without its length.

    Raises:
        FrameInvalid: the body is no frame.
    """
    try:
        message = json.loads(body)
        kind, fields = FrameKind(message["kind"]), message["fields"]
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise FrameInvalid("the body of a frame is not a frame") from err
    if not isinstance(fields, dict):
        raise FrameInvalid("the fields of a frame are not an object")
    return Frame(kind, fields)


def _poll(fd: int, event: int, timeout_seconds: float | None) -> bool:
    # poll, because select refuses descriptors over 1023
    poller = select.poll()
    poller.register(fd, event)
    return bool(poller.poll(None if timeout_seconds is None else timeout_seconds * 1000))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
