"""Reading the instances and parameters of a request. Every function raises InstanceInvalid, naming the field."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from workers.families.base import Instance, InstanceInvalid


def refuse_unknown(params: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse parameters that would have no effect."""
    names = sorted(known)
    if unknown := sorted(set(params) - set(names)):
        raise InstanceInvalid(f"unknown parameter {unknown[0]!r:.50}; known are {', '.join(names)}")


def fraction(params: Mapping[str, Any], name: str, default: float) -> float:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InstanceInvalid(f"{name} must be a number from 0 to 1, not {value!r:.50}")
    return float(value)


def number(value: Any, place: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InstanceInvalid(f"{place} must be a number from {low:g} to {high:g}, not {value!r:.50}")
    return float(value)


def count(params: Mapping[str, Any], name: str, default: int, *, limit: int) -> int:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise InstanceInvalid(f"{name} must be a whole number from 1 to {limit}, not {value!r:.50}")
    return value


def flag(params: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = params.get(name, default)
    if not isinstance(value, bool):
        raise InstanceInvalid(f"{name} must be true or false, not {value!r:.50}")
    return value


def image_bytes(instance: Instance) -> bytes:
    if instance.body is not None:
        return instance.body
    image = instance.fields.get("image")
    if not isinstance(image, Mapping) or not isinstance(image.get("b64"), str):
        raise InstanceInvalid('no image: send its bytes as the body, or {"image": {"b64": "<base64>"}}')
    return encoded_bytes(image, "image")


def encoded_bytes(value: Any, name: str) -> bytes:
    """Return the file that a field holds as `{"b64": "<base64>"}`."""
    encoded = value.get("b64") if isinstance(value, Mapping) else None
    if not isinstance(encoded, str):
        raise InstanceInvalid(f'{name} must be {{"b64": "<base64>"}}, the bytes of an encoded picture')
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as err:
        raise InstanceInvalid(f"{name}.b64 is not valid base64") from err
