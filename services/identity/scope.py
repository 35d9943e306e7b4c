"""Holds the resource names of a request against the project of the token, before any handler sees it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from google.protobuf.message import Message

from services.core import names
from services.core.errors import PermissionDenied, Violation
from services.identity.access import Rule

_PREFIX = "projects/"


def confine(request: Any, rule: Rule, project: str) -> Any:
    """Return the request, or the stream of requests, with an empty parent filled in.

    Raises:
        PermissionDenied: a field names a resource of another project; from a stream, when it is read.
    """
    if isinstance(request, AsyncIterable):
        return _confine_stream(request, rule, project)
    _confine_message(request, rule, project)
    return request


def resource_of(request: Any, rule: Rule) -> str:
    """Return the first resource that a request names, for the record; empty for streams."""
    for path in rule.names:
        holder, field = _find(request, path)
        if holder is not None and (value := getattr(holder, field)):
            return str(value)
    return ""


async def _confine_stream(requests: AsyncIterable[Any], rule: Rule, project: str) -> AsyncIterator[Any]:
    async for request in requests:
        _confine_message(request, rule, project)
        yield request


def _confine_message(message: Any, rule: Rule, project: str) -> None:
    for path in rule.names:
        holder, field = _find(message, path)
        if holder is None:
            continue
        value = getattr(holder, field)
        if not value and path == rule.parent:
            setattr(holder, field, names.project(project))
        elif value.startswith(_PREFIX) and not _is_of(value, project):
            raise _foreign(path, value, project)
        # Anything else is no name of a resource, and the handler says so.


def _is_of(name: str, project: str) -> bool:
    own = names.project(project)
    return name == own or name.startswith(f"{own}/")


def _find(message: Any, path: str) -> tuple[Any, str]:
    """Return the message that holds the field of `path`, or None where an outer one is not set."""
    *outer, field = path.split(".")
    for name in outer:
        if not isinstance(message, Message) or not message.HasField(name):
            return None, field
        message = getattr(message, name)
    return (message if isinstance(message, Message) else None), field


def _foreign(field: str, value: str, project: str) -> PermissionDenied:
    text = f"names something outside project {project!r}, which the token is for; use a token of that project"
    return PermissionDenied(f"{field} {text}", violations=[Violation(field, text)])
