"""From pydantic's errors to field violations that say where, what is wrong and what to do instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from services.core.errors import Violation

ROOT = "config"
MAX_SHOWN = 60


def config_violations(model: type[BaseModel], error: ValidationError, preset: Mapping[str, Any]) -> list[Violation]:
    """Return everything that `error` found wrong with a config of `model` that was laid over a complete preset."""
    return [_violation(model, details, preset) for details in error.errors(include_url=False)]


def _violation(model: type[BaseModel], error: ErrorDetails, preset: Mapping[str, Any]) -> Violation:
    is_unknown = error["type"] == "extra_forbidden"
    # The key that is not known may look like anything, and is no tag: tags are of what is known.
    known = error["loc"][:-1] if is_unknown else error["loc"]
    path = [*(part for part in known if not _is_tag(part)), *error["loc"][len(known) :]]
    if is_unknown:
        return Violation(_name(path), _explain_unknown(model, path))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return Violation(_name(path), message)
    return Violation(_name(path), f"{message}, not {_show(error['input'])}{_describe(model, path, preset)}")


def _name(path: list[int | str]) -> str:
    def written(part: int | str) -> str:
        is_plain = isinstance(part, str) and part.isidentifier()
        return f".{part}" if is_plain else f"[{part!r}]"

    return ROOT + "".join(map(written, path))


def _is_tag(part: int | str) -> bool:
    # Members of a union appear in the path by their type, such as `int` or `function-after[...]`.
    return isinstance(part, str) and not part.isidentifier()


def _explain_unknown(model: type[BaseModel], path: list[int | str]) -> str:
    key = str(path[-1])
    section = _model_at(model, path[:-1])
    known = list(section.model_fields) if section is not None else []
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if close:
        return f"there is no {key!r} here; did you mean {' or '.join(repr(name) for name in close)}?"
    elsewhere = [found for found in _paths(model) if found.rpartition(".")[2] == key]
    if elsewhere:
        return f"there is no {key!r} here; did you mean {ROOT}.{elsewhere[0]}?"
    return f"there is no {key!r} here; use one of: {', '.join(known)}" if known else f"there is no {key!r} here"


def _describe(model: type[BaseModel], path: list[int | str], preset: Mapping[str, Any]) -> str:
    field = _field_at(model, path)
    if field is None:
        return ""
    description = f". {field.description}" if field.description else ""
    default = _value_at(preset, path)
    return description if isinstance(default, Mapping) else f"{description} Default: {_show(default)}."


def _value_at(preset: Mapping[str, Any], path: list[int | str]) -> Any:
    """Return what a preset has for the field of a path, or the innermost section that has it."""
    value: Any = preset
    for name in (part for part in path if isinstance(part, str)):
        if not isinstance(value, Mapping) or name not in value:
            break
        value = value[name]
    return value


def _field_at(model: type[BaseModel], path: list[int | str]) -> FieldInfo | None:
    names = [part for part in path if isinstance(part, str)]
    section = _model_at(model, names[:-1])
    return section.model_fields.get(names[-1]) if section is not None and names else None


def _model_at(model: type[BaseModel], path: list[int | str] | list[str]) -> type[BaseModel] | None:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None or not _is_model(field.annotation):
            return None
        model = field.annotation  # type: ignore[assignment]  # _is_model says so
    return model


def _paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(f"{prefix}{name}")
        if _is_model(field.annotation):
            found += _paths(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]  # _is_model says so
    return found


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _show(value: Any) -> str:
    shown = repr(list(value) if isinstance(value, tuple) else value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 3]}..."
