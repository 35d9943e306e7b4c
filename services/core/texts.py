"""What texts of requests may hold: words for people, and the ids by which a request is known again."""

from __future__ import annotations

import re

from services.core.errors import RequestInvalid, Violation

MAX_DISPLAY_NAME = 120
MAX_REASON = 1000
_REQUEST_ID = re.compile(r"[ -~]{0,128}")


def faults_of_text(value: str, *, field: str, most: int = MAX_DISPLAY_NAME) -> list[Violation]:
    """Return what is wrong with words that people see on one line."""
    if len(value) <= most and value.isprintable():
        return []
    return [Violation(field, f"must be at most {most} printable characters")]


def faults_of_request_id(value: str, *, field: str = "request_id") -> list[Violation]:
    if _REQUEST_ID.fullmatch(value):
        return []
    return [Violation(field, "must be at most 128 printable ASCII characters, such as a UUID")]


def check_request_id(value: str) -> str:
    """Return `value`, or raise RequestInvalid."""
    if violations := faults_of_request_id(value):
        raise RequestInvalid(violations=violations)
    return value


def check_reason(value: str) -> str:
    """Return why somebody asks for something, in any number of lines, or raise RequestInvalid."""
    if len(value) > MAX_REASON:
        raise RequestInvalid(violations=[Violation("reason", f"must be at most {MAX_REASON} characters")])
    return value
