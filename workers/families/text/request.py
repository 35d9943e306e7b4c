"""Reading what a caller asks about text. Everything raises InstanceInvalid, naming the field and what to send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from workers.families.base import Instance, InstanceInvalid
from workers.families.instances import refuse_unknown

_MAX_SEED = 2**31


def fields_of(instance: Instance, known: Iterable[str]) -> dict[str, Any]:
    """Return the fields of an instance over the parameters of its request."""
    if instance.body is not None:
        raise InstanceInvalid('this model reads text, no image: send {"instances": [{"text": "..."}]}')
    fields = {**instance.params, **instance.fields}
    refuse_unknown(fields, known)
    return fields


def text(fields: Mapping[str, Any], name: str, *, limit: int, default: str | None = None) -> str:
    """Return a text of at most `limit` characters; without a default it must hold more than blanks."""
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise InstanceInvalid(
            f"{name} is missing: give a text" if value is None else f"{name} must be a text, not {value!r:.50}"
        )
    if len(value) > limit:
        raise InstanceInvalid(f"{name} has {len(value)} characters; at most {limit} are read")
    if default is None and not value.strip():
        raise InstanceInvalid(f"{name} is empty; give a text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InstanceInvalid(f"{name} holds half of a letter (a lone surrogate); send whole ones")
    return value


def choice(fields: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """Return one of the choices; the first is the default."""
    value = fields.get(name, choices[0])
    if value not in choices:
        raise InstanceInvalid(f"{name} must be {' or '.join(choices)}, not {value!r:.50}")
    return str(value)


def seed(fields: Mapping[str, Any]) -> int:
    value = fields.get("seed", 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_SEED:
        raise InstanceInvalid(f"seed must be a whole number from 0 to {_MAX_SEED - 1}, not {value!r:.50}")
    return value
