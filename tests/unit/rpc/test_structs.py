from __future__ import annotations

import math
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from services.rpc.structs import to_dict, to_struct

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_json_values_survive_the_way_there_and_back(values: dict[str, Any]) -> None:
    assert to_dict(to_struct(values)) == values


def test_integers_come_back_as_integers() -> None:
    back = to_dict(to_struct({"steps": 10, "lr": 0.5}))

    assert (back["steps"], type(back["steps"])) == (10, int)
    assert type(back["lr"]) is float


def test_empty_containers_are_kept() -> None:
    assert to_dict(to_struct({"a": [], "b": {}, "c": ()})) == {"a": [], "b": {}, "c": []}


def test_what_is_no_number_stays_none() -> None:
    assert math.isnan(to_dict(to_struct({"loss": math.nan}))["loss"])


def test_it_reads_what_protobufs_own_json_writes() -> None:
    struct = json_format.ParseDict({"a": {"b": [1, "x", None, True]}}, Struct())

    assert to_dict(struct) == {"a": {"b": [1, "x", None, True]}}
