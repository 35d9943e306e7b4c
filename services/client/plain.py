"""Messages as JSON-ready values that machines read without surprises.

Proto's own JSON writes 64-bit integers as text and leaves out what is zero. Here numbers are numbers, every
field is there, and an unset message or optional field is null.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

# A field's descriptor is Any below: protobuf has two implementations of the class, and one of them no types.


def as_dict(message: Message) -> dict[str, Any]:
    """Return every field by its proto name; of a oneof only the member that is set."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields if _is_shown(message, field)}


def as_struct(values: Mapping[str, Any] | None) -> Struct | None:
    """Return values as the wire has them; nothing for none."""
    if not values:
        return None
    struct = Struct()
    struct.update(dict(values))
    return struct


def _is_shown(message: Message, field: Any) -> bool:
    oneof = field.containing_oneof
    # An `optional` field is a oneof of one member to protobuf.
    is_choice = oneof is not None and len(oneof.fields) > 1
    return not is_choice or message.HasField(field.name)


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if _is_map(field):
        convert = _converter(field.message_type.fields_by_name["value"])
        return {str(key): convert(value[key]) for key in sorted(value)}
    convert = _converter(field)
    if field.is_repeated:
        return [convert(item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return convert(value)


def _is_map(field: Any) -> bool:
    return bool(field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.GetOptions().map_entry)


def _converter(field: Any) -> Callable[[Any], Any]:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _message
    if field.type == FieldDescriptor.TYPE_ENUM:
        names = field.enum_type.values_by_number
        return lambda number: names[number].name if number in names else number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda content: base64.b64encode(content).decode()
    return _scalar


def _whole_numbers(value: Any) -> Any:
    """Return a Struct's content with 600 where it says 600.0: a Struct knows no integers.

    By key, as with maps: protobuf keeps a Struct's fields in an order that differs from message to message.
    """
    if isinstance(value, dict):
        return {key: _whole_numbers(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _scalar(value: Any) -> Any:
    # JSON has no number for a loss that blew up; proto's own words for it can be told from a number.
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _message(value: Message) -> Any:
    if isinstance(value, Struct):
        return _whole_numbers(MessageToDict(value))
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Duration):
        return value.ToTimedelta() / timedelta(seconds=1)
    return as_dict(value)
