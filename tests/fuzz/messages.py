"""Strategies for messages of any kind: valid, at the edges of every type, malformed, and hostile in every text."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st
from trainyard.v1 import dataset_pb2

from tests.builders import datasets
from tests.fuzz.rpcs import Rpc

T = TypeVar("T")

MAX_DEPTH = 4
MAX_ITEMS = 4
_DEEP = 60

HOSTILE_TEXT = (
    "",
    " ",
    "\0",
    "a\0b",
    "\n\r\t\x1b[2J",
    "\u202egnp.exe",
    "e\u0301" * 40,
    "\U0001d4b3" * 50,
    "\ufeff\ufffe",
    "A" * 10_000,
    "a" * 64,
    "' OR '1'='1",
    "'; DROP TABLE jobs; --",
    'x" UNION SELECT sha256 FROM tokens --',
    "../../../../etc/passwd",
    "/etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "file:///etc/passwd",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}%s%n%x",
    "$(touch pwned)`id`",
    "<script>alert(1)</script>",
    "null",
    "-1",
    "9" * 30,
    "NaN",
    "1e999",
    "0x7fffffff",
    "[" * 5000,
    "projects/default",
    "projects/default/",
    "projects//jobs/",
    "projects/default/jobs/../../other",
    "projects/default/jobs/" + "x" * 63,
    "projects/" + "a" * 5000 + "/jobs/b",
    "projects/default/models/m/versions/99999999999999999999",
    "projects/default/models/m/versions/-1",
    "projects/default/models/m/versions/\u0663",
    "projects/default/jobs/a/checkpoints/b",
    "projects/default/jobs/a/artifacts/b",
    "recipes/detection/yolo_v1",
    "detection/yolo_v1",
    "recipes/../../secret",
    "tiny",
    "full",
    "detection",
    "https://127.0.0.1/a.zip",
    "https://169.254.169.254/latest/meta-data/",
    "http://localhost:22/",
    "https://[::ffff:127.0.0.1]/",
    "https://user:pass@127.0.0.1/",
)
_NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    64,
    255,
    256,
    65_535,
    65_536,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 2.0**53)
_SMALL = (0, 1, 2)
_IS_SET = st.sampled_from((True, True, True, False))
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    # Open enums carry any number.
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a caller with knowledge would send, and how often he sends anything else instead."""

    fitting: Callable[[str, str], Sequence[str]] = lambda message, field: ()
    """Texts that fit a field, by the names of its message and itself."""
    names: Sequence[str] = ()
    """Names that exist, of every kind."""
    hostility: int = 10
    """Of ten values, how many are made to do harm."""

    def texts(self, message: str, field: str) -> st.SearchStrategy[str]:
        polite = st.sampled_from(self.fitting(message, field) or ("", "plain"))
        free = st.text(st.characters(codec="utf-8"), max_size=40)
        hostile = st.one_of(st.sampled_from(self.names or ("",)), st.sampled_from(HOSTILE_TEXT), free)
        return weighted((10 - self.hostility, polite), (self.hostility, hostile))

    def numbers(self, edges: Sequence[int], low: int, high: int) -> st.SearchStrategy[int]:
        hostile = st.one_of(st.sampled_from(edges), st.integers(low, high))
        return weighted((10 - self.hostility, st.sampled_from(_SMALL)), (self.hostility, hostile))


def weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """Choose between strategies, each as often as its weight says; `one_of` takes repeated ones as one."""
    strategies = [strategy for _, strategy in choices]
    numbers = [number for number, (weight, _) in enumerate(choices) for _ in range(weight)]
    return st.sampled_from(numbers).flatmap(lambda number: strategies[number])


def requests(rpc: Rpc, vocabulary: Vocabulary) -> st.SearchStrategy[list[bytes]]:
    """Return what to send in one call: one body, or several where the method takes a stream."""
    body = weighted(
        (8, _serialised(rpc.request, vocabulary)), (1, _mangled(rpc.request, vocabulary)), (1, st.binary(max_size=200))
    )
    if rpc.path.endswith("/CreateDataset"):
        return weighted((19, st.lists(body, max_size=5)), (1, uploads()))
    if rpc.is_client_streaming:
        return st.lists(body, max_size=5)
    return body.map(lambda one: [one])


@st.composite
def uploads(draw: st.DrawFn) -> list[bytes]:
    """An upload that keeps to the protocol, of an archive that may keep to nothing."""
    archive = bytearray(draw(st.sampled_from(_archives())))
    for _ in range(draw(st.integers(0, 4))):
        archive[draw(st.integers(0, len(archive) - 1))] = draw(st.integers(0, 255))
    header = dataset_pb2.CreateDatasetHeader(dataset_id="fuzzed", size_bytes=len(archive))
    size = draw(st.sampled_from((len(archive), 1000)))
    chunks = [bytes(archive[at : at + size]) for at in range(0, len(archive), size)]
    sent = [dataset_pb2.CreateDatasetRequest(header=header)]
    sent += [dataset_pb2.CreateDatasetRequest(chunk=chunk) for chunk in chunks]
    return [one.SerializeToString() for one in sent]


@cache
def _archives() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [
            datasets.zipped(folder / "a.zip", datasets.coco().content()),
            datasets.tarred(folder / "a.tar.gz", datasets.coco().content()),
            datasets.zipped(folder / "b.zip", datasets.voc()),
            datasets.zipped(folder / "c.zip", datasets.yolo()),
        ]
        return tuple(path.read_bytes() for path in found)


def page_tokens(real: str) -> list[str]:
    """Return tokens made from a real one: its question with other keys, and what only looks like a token."""
    padded = real + "=" * (-len(real) % 4)
    question = json.loads(base64.urlsafe_b64decode(padded))[0]
    times = ["2024-01-01", "not a time", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"]
    times += ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2024-01-01T00:00:00Z", "\0"]
    keys: list[list[Any]] = [[question, time, row] for time in times for row in ("", "a", "\0", "x" * 5000)]
    keys += [
        [question],
        [question, "a"],
        [question, 1, 2],
        ["other", "a", "b"],
        [],
        [[question]],
        [question, None, None],
    ]
    texts = [json.dumps(key) for key in keys] + ["{}", "1", '"x"', "[" * 100_000, "[" * 100_000 + "]" * 100_000]
    return [real, *(base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in texts)]


@st.composite
def _serialised(draw: st.DrawFn, descriptor: Descriptor, vocabulary: Vocabulary) -> bytes:
    """A message by a caller of good, of mixed or of no manners at all."""
    mannered = replace(vocabulary, hostility=draw(st.sampled_from((0, 1, 1, 5))))
    return draw(messages(descriptor, mannered)).SerializeToString()


@st.composite
def _mangled(draw: st.DrawFn, descriptor: Descriptor, vocabulary: Vocabulary) -> bytes:
    """A valid message cut short, or with bytes changed."""
    body = bytearray(draw(_serialised(descriptor, vocabulary)))
    for _ in range(draw(st.integers(0, 3))):
        if body:
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))])


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, vocabulary: Vocabulary, depth: int = 0) -> Message:
    """A message with any of its fields set; of a oneof, one."""
    if (special := _SPECIAL.get(descriptor.full_name)) is not None:
        return draw(special(descriptor, vocabulary))
    message: Any = message_factory.GetMessageClass(descriptor)()
    for one in descriptor.fields:
        # Most of the fields: what is left out is often required. Of a oneof the last one set stays.
        if not draw(_IS_SET) or (one.message_type is not None and depth >= MAX_DEPTH):
            continue
        _fill(draw, message, one, vocabulary, depth)
    return message  # type: ignore[no-any-return]


def _fill(draw: st.DrawFn, message: Any, one: FieldDescriptor, vocabulary: Vocabulary, depth: int) -> None:
    kind = one.message_type
    if kind is not None and kind.GetOptions().map_entry:
        key, value = kind.fields_by_name["key"], kind.fields_by_name["value"]
        for _ in range(draw(st.integers(0, MAX_ITEMS))):
            target = getattr(message, one.name)
            if value.message_type is not None:
                inner = draw(messages(value.message_type, vocabulary, depth + 1))
                target[draw(_scalars(key, vocabulary))].CopyFrom(inner)
            else:
                target[draw(_scalars(key, vocabulary))] = draw(_scalars(value, vocabulary))
    elif one.is_repeated:
        many = 200 if kind is None and vocabulary.hostility else MAX_ITEMS
        count = draw(st.one_of(st.integers(0, MAX_ITEMS), st.just(many)))
        if kind is not None:
            getattr(message, one.name).extend(draw(messages(kind, vocabulary, depth + 1)) for _ in range(count))
        else:
            value = draw(_scalars(one, vocabulary))
            getattr(message, one.name).extend([value] * count)
    elif kind is not None:
        getattr(message, one.name).CopyFrom(draw(messages(kind, vocabulary, depth + 1)))
    else:
        setattr(message, one.name, draw(_scalars(one, vocabulary)))


def _scalars(one: FieldDescriptor, vocabulary: Vocabulary) -> st.SearchStrategy[Any]:
    kind = one.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if one.type == FieldDescriptor.TYPE_BYTES:
            return st.one_of(
                st.binary(max_size=200), st.sampled_from([b"", b"\0" * 5000, b"PK\x03\x04", b"{" * 100_000])
            )
        return vocabulary.texts(one.containing_type.name, one.name)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        width = 32 if kind == FieldDescriptor.CPPTYPE_FLOAT else 64
        edges = [
            value
            for value in _FLOATS
            if width == 64 or abs(value) <= 3e38 or value != value or abs(value) == float("inf")
        ]
        return st.one_of(st.sampled_from(edges), st.floats(width=width))
    low, high = _RANGES[kind]
    edges = [number for number in _NUMBERS if low <= number <= high]
    if one.enum_type is not None:
        edges += [value.number for value in one.enum_type.values] * 3
    return vocabulary.numbers(edges, low, high)


def _struct(descriptor: Descriptor, vocabulary: Vocabulary) -> st.SearchStrategy[Message]:
    """Objects of JSON: of every shape, deeper and wider than anyone needs."""
    make: Any = message_factory.GetMessageClass(descriptor)
    leaves = st.one_of(st.none(), st.booleans(), st.sampled_from(_FLOATS), st.floats(), st.sampled_from(HOSTILE_TEXT))
    keys = st.one_of(
        st.sampled_from(["optim", "lr", "limits", "max_steps", "data", "batch_size", "runtime", "seed", ""]),
        st.sampled_from(HOSTILE_TEXT),
    )
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
    )

    def build(content: dict[str, Any]) -> Message:
        struct = make()
        for key, value in content.items():
            _set_value(struct.fields[key], value)
        return struct  # type: ignore[no-any-return]

    shapes = st.one_of(
        st.dictionaries(keys, values, max_size=4),
        st.just(_DEEP).map(_nested),
        st.just({f"key{number}": float(number) for number in range(3000)}),
    )
    polite = st.sampled_from(({}, {"limits": {"max_steps": 5.0}}, {"optim": {"lr": 0.01}}))
    return weighted((10 - vocabulary.hostility, polite), (vocabulary.hostility, shapes)).map(build)


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"lr": 1.0}
    for _ in range(depth // 2):
        value = {"optim": value}
    return value


def _set_value(target: Any, value: Any) -> None:
    if value is None:
        target.null_value = 0
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, float):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        for key, item in value.items():
            _set_value(target.struct_value.fields[key], item)
    else:
        target.list_value.SetInParent()
        for item in value:
            _set_value(target.list_value.values.add(), item)


_SPECIAL: dict[str, Callable[[Descriptor, Vocabulary], st.SearchStrategy[Message]]] = {
    "google.protobuf.Struct": _struct
}
