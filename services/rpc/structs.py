"""google.protobuf.Struct to and from plain JSON values, without the detour over JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value

EXACT_INTEGERS = 2**53


def to_dict(struct: Struct) -> dict[str, Any]:
    """Return the values of `struct`; numbers without a fraction become integers."""
    return {key: _to_plain(value) for key, value in struct.fields.items()}


def to_struct(values: Mapping[str, Any]) -> Struct:
    """Return `values`, which are JSON values, as a Struct."""
    struct = Struct()
    _fill_struct(struct, values)
    return struct


def _to_plain(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if abs(number) < EXACT_INTEGERS and number.is_integer() else number
    if kind == "struct_value":
        return to_dict(value.struct_value)
    if kind == "list_value":
        return [_to_plain(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _fill_struct(struct: Struct, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        _fill(struct.fields[key], value)


def _fill_list(target: ListValue, values: list[Any] | tuple[Any, ...]) -> None:
    for value in values:
        _fill(target.values.add(), value)


def _fill(target: Value, value: Any) -> None:
    # By exact type first: answers hold whole configs, and checks against abstract classes are slow.
    kind = type(value)
    if kind is float or kind is int:
        target.number_value = value
    elif kind is str:
        target.string_value = value
    elif kind is bool:
        target.bool_value = value
    elif value is None:
        target.null_value = 0  # type: ignore[assignment]  # NULL_VALUE, the only one
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        _fill_struct(target.struct_value, value)
    elif isinstance(value, list | tuple):
        target.list_value.SetInParent()
        _fill_list(target.list_value, value)
    else:
        raise TypeError(f"not a JSON value: {kind.__name__}")
