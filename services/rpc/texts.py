"""Texts of a request that no part behind the wire could keep: PostgreSQL stores no NUL, and C ends a text at one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

NUL = "\0"


def nul_field(message: Message) -> str | None:
    """Return the path of the first text with a NUL character, such as `config.fields`; None where there is none."""
    return next(_nul_fields(message), None)


def _nul_fields(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        is_text = field.type == FieldDescriptor.TYPE_STRING
        if field.message_type is None and not is_text:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from _of_map(field, value)
        elif field.is_repeated:
            for item in value:
                yield from _of_value(field.name, item, is_text=is_text)
        else:
            yield from _of_value(field.name, value, is_text=is_text)


def _of_map(field: FieldDescriptor, values: Any) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(key, str) and NUL in key:
            yield field.name
        if isinstance(value, str | Message):
            yield from _of_value(field.name, value, is_text=isinstance(value, str))


def _of_value(name: str, value: Any, *, is_text: bool) -> Iterator[str]:
    if is_text:
        if NUL in value:
            yield name
        return
    for inner in _nul_fields(value):
        yield f"{name}.{inner}"
