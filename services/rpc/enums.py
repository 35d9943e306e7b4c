"""Enums of the wire by name. The generated wrappers know names; their types do not say so."""

from __future__ import annotations

from typing import Any


def enum_value(wrapper: Any, name: str, *, default: int = 0) -> Any:
    """Return the number of `name` in a generated enum, or `default` where it has no such name."""
    return wrapper.Value(name) if name in wrapper.keys() else default  # noqa: SIM118 - not a dict
