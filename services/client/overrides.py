"""`--set optim.lr=0.01` and `--param score_threshold=0.3`: text of the shell into typed, nested values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_EXAMPLES = {"--set": "optim.lr=0.01", "--param": "score_threshold=0.3"}


class OverrideInvalid(ValueError):
    """An assignment that cannot be read; the message says which and how to write it."""


def parse_value(text: str) -> Any:
    """Read JSON where it is JSON (numbers, true, null, lists), plain text otherwise.

    `NaN` and `Infinity` stay text: they are no JSON, and no setting takes them.
    """
    if text in ("NaN", "Infinity", "-Infinity"):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return _parse_number(text)


def parse_assignments(assignments: Sequence[str], *, option: str = "--set") -> dict[str, Any]:
    """Return `{dotted key: value}` in the order given.

    Raises:
        OverrideInvalid: no `=`, an empty or badly dotted key, or a key given twice.
    """
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise OverrideInvalid(f"{option} {assignment!r}: write KEY=VALUE, such as {option} {_EXAMPLES[option]}")
        if key in parsed:
            raise OverrideInvalid(f"{option} {key} is given twice; keep one of them")
        parsed[key] = parse_value(text.strip())
    return parsed


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested objects.

    Raises:
        OverrideInvalid: one key is both a value and a section.
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise OverrideInvalid(f"--set {key}: {section!r} has a value already; set its fields or the whole")
        if leaf in inner:
            raise OverrideInvalid(f"--set {key} contradicts another --set of the same section")
        inner[leaf] = value
    return nested


def _parse_number(text: str) -> Any:
    # JSON has no `1e-3` trouble but refuses `.5`, `+1` and `1.`, which people type.
    body = text.lstrip("+-")
    if body[:1].isdigit() or body[:1] == ".":
        try:
            return float(text)
        except ValueError:
            return text
    return text
