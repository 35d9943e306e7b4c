"""Answers of served networks, compared without knowing their family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def same_answer(expected: Any, actual: Any, *, absolute: float = 0.05, relative: float = 0.02) -> bool:
    """Return whether two answers agree: same shape and words, numbers within a tolerance.

    Looser than a family's own comparison, but for the order of what is listed, which has to be the same; the point is
    that the whole way over the wire gives an archive's answers. Encoded pictures need only be there: a
    processor of another kind may round a pixel the other way, and then every byte after it differs.
    """
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, int | float) and isinstance(actual, int | float):
        allowed = max(absolute, 2.0 if abs(expected) > 1 else 0.0) + relative * abs(expected)
        return abs(expected - actual) <= allowed
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        if expected.keys() == actual.keys() == {"b64"}:
            return bool(expected["b64"]) == bool(actual["b64"])
        return expected.keys() == actual.keys() and all(same_answer(expected[key], actual[key]) for key in expected)
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(same_answer, expected, actual))
    return bool(expected == actual)
