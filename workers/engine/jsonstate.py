"""Python values of schedulers and optimizers as JSON that restores to equal values; never a pickle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from workers.engine.errors import StateUnsupported

_TAG = "$"


def encode(value: Any, *, where: str) -> Any:
    """Return a JSON-ready form of numbers, strings and plain containers.

    Raises:
        StateUnsupported: the value is anything else; `where` says whose it is.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
    if isinstance(value, list):
        return [encode(item, where=where) for item in value]
    if isinstance(value, tuple):
        return {_TAG: "tuple", "value": [encode(item, where=where) for item in value]}
    if isinstance(value, Mapping):
        tag = "counter" if isinstance(value, Counter) else "dict"
        return {_TAG: tag, "value": [[encode(k, where=where), encode(v, where=where)] for k, v in value.items()]}
    raise StateUnsupported(f"{where} keeps a {type(value).__name__}; keep numbers, or tensors in TrainState.tensors")


def decode(value: Any) -> Any:
    """Return what `encode` was given."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag, body = value[_TAG], value["value"]
    if tag == "float":
        return float(body)
    if tag == "tuple":
        return tuple(decode(item) for item in body)
    items = {decode(k): decode(v) for k, v in body}
    return Counter(items) if tag == "counter" else items
