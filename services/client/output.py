"""Everything the command line writes: tables and sentences for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.client.errors import ApiError
from services.client.plain import as_dict


@dataclass(frozen=True, slots=True)
class Output:
    """Standard output of one command. With `is_json`, exactly one document or a stream of lines."""

    is_json: bool

    def document(self, value: Message | Mapping[str, Any] | Sequence[Any]) -> None:
        plain = as_dict(value) if isinstance(value, Message) else value
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))

    def record(self, value: Message | Mapping[str, Any]) -> None:
        """Write one line of a stream."""
        plain = as_dict(value) if isinstance(value, Message) else value
        click.echo(json.dumps(plain, ensure_ascii=False))

    def say(self, text: str) -> None:
        """Write a sentence for a person; silent where a machine reads."""
        if not self.is_json:
            click.echo(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
        """Write aligned columns, or `empty` where there is no row."""
        lines = [tuple(columns), *(tuple(row) for row in rows)]
        if len(lines) == 1:
            click.echo(empty)
            return
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Write `name  value` lines, those without a value left out."""
        kept = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in kept), default=0)
        for name, value in kept:
            click.echo(f"{name.ljust(width)}  {value}")

    def error(self, error: Exception) -> None:
        """Write what went wrong to standard error: every field with what is wrong and the remedy."""
        if self.is_json:
            click.echo(json.dumps({"error": describe_error(error)}, ensure_ascii=False), err=True)
            return
        violations = error.violations if isinstance(error, ApiError) else ()
        if not violations:
            click.echo(f"error: {error}", err=True)
        for violation in violations:
            field = f"{violation.field}: " if violation.field else ""
            click.echo(f"error: {field}{violation.description}", err=True)
        if isinstance(error, ApiError) and error.code in ("INTERNAL", "UNKNOWN") and error.request_id:
            click.echo(f"  request id {error.request_id}: search for it in the API's log", err=True)


def describe_error(error: Exception) -> dict[str, Any]:
    if not isinstance(error, ApiError):
        return {"code": "CLIENT", "reason": type(error).__name__, "message": str(error), "violations": []}
    return {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "violations": [{"field": each.field, "description": each.description} for each in error.violations],
        "request_id": error.request_id,
    }


def human_seconds(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"


def human_time(time: Timestamp) -> str:
    """Return local time to the second, or nothing for an unset time."""
    if not time.seconds:
        return ""
    return datetime.fromtimestamp(time.seconds, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
