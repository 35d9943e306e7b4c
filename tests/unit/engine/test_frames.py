from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.frames import (
    MAX_FRAME_BYTES,
    Frame,
    FrameInvalid,
    FrameKind,
    FrameParser,
    FrameReader,
    FrameWriter,
    encode,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FRAMES = st.builds(Frame, st.sampled_from(FrameKind), st.dictionaries(st.text(), VALUES, max_size=5))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


@given(frames=st.lists(FRAMES, max_size=6), data=st.data())
def test_frames_survive_any_cut_of_the_stream(frames: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(encode(frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser = FrameParser()

    parsed: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        parsed += parser.feed(stream[start:end])

    assert parsed == frames
    assert not parser.is_mid_frame


@given(garbage=st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for_and_never_crashes(garbage: bytes) -> None:
    parser = FrameParser(max_frame_bytes=64)

    try:
        frames = parser.feed(garbage)
    except FrameInvalid:
        return

    assert all(isinstance(frame, Frame) for frame in frames)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[]", id="not an object"),
        pytest.param(b"{", id="not JSON"),
        pytest.param(b'{"kind":"surprise","fields":{}}', id="unknown kind"),
        pytest.param(b'{"kind":"step"}', id="no fields"),
        pytest.param(b'{"kind":"step","fields":[]}', id="fields are a list"),
        pytest.param(b'{"kind":[],"fields":{}}', id="kind is a list"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b"[" * 5000, id="nested too deep"),
    ],
)
def test_a_body_that_is_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(FrameInvalid):
        FrameParser().feed(struct.pack(">I", len(body)) + body)


def test_an_oversized_length_is_refused_before_its_bytes_arrive() -> None:
    with pytest.raises(FrameInvalid, match="over the limit"):
        FrameParser().feed(struct.pack(">I", MAX_FRAME_BYTES + 1))


def test_a_frame_too_large_is_refused_by_the_writer(pipe: tuple[int, int]) -> None:
    with pytest.raises(FrameInvalid, match="over the limit"):
        FrameWriter(pipe[1]).write(FrameKind.LOG, level="info", text="x" * MAX_FRAME_BYTES)


def test_numbers_that_are_not_finite_travel_as_null(pipe: tuple[int, int]) -> None:
    FrameWriter(pipe[1]).write(FrameKind.EVAL, step=1, metrics={"a": float("nan"), "b": [float("inf"), 1.5]})

    (frame,) = FrameReader(pipe[0]).read(timeout_seconds=1)

    assert frame.fields["metrics"] == {"a": None, "b": [None, 1.5]}


def test_reading_an_empty_pipe_does_not_block(pipe: tuple[int, int]) -> None:
    reader = FrameReader(pipe[0])

    assert reader.read() == []
    assert not reader.is_closed


def test_a_writer_that_died_inside_a_frame_leaves_a_cut_stream() -> None:
    read_fd, write_fd = os.pipe()
    whole = encode(Frame(FrameKind.ALIVE, {"step": 1}))
    os.write(write_fd, whole + whole[:-3])
    os.close(write_fd)
    reader = FrameReader(read_fd)

    frames = reader.read(timeout_seconds=1)
    os.close(read_fd)

    assert [frame.fields["step"] for frame in frames] == [1]
    assert reader.is_closed
    assert reader.is_cut


def test_threads_share_a_writer_without_mixing_frames(pipe: tuple[int, int]) -> None:
    writer, reader = FrameWriter(pipe[1]), FrameReader(pipe[0])
    text = "x" * 3000

    def write(name: int) -> None:
        for step in range(40):
            writer.write(FrameKind.LOG, level=str(name), text=text, step=step)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    frames: list[Frame] = []
    while len(frames) < 160:
        frames += reader.read(timeout_seconds=10)
    for thread in threads:
        thread.join()

    assert all(frame.fields["text"] == text for frame in frames)
    for name in range(4):
        assert [f.fields["step"] for f in frames if f.fields["level"] == str(name)] == list(range(40))


def test_a_frame_larger_than_the_pipe_arrives_whole(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer, reader = FrameWriter(pipe[1]), FrameReader(pipe[0])
    thread = threading.Thread(target=lambda: writer.write(FrameKind.LOG, level="info", text="y" * 500_000))

    thread.start()
    frames: list[Frame] = []
    while not frames:
        frames = reader.read(timeout_seconds=10)
    thread.join()

    assert len(frames[0].fields["text"]) == 500_000


def test_the_wire_form_is_a_length_and_json() -> None:
    data = encode(Frame(FrameKind.ARTIFACT, {"kind": "samples", "step": 3}))

    assert struct.unpack(">I", data[:4]) == (len(data) - 4,)
    assert json.loads(data[4:]) == {"kind": "artifact", "fields": {"kind": "samples", "step": 3}}
