"""The version at the end of a model version's name."""

from __future__ import annotations

from services.core.errors import RequestInvalid, Violation

LATEST = "latest"


def version_number(text: str, *, field: str = "name") -> int | None:
    """Return the number, or None for `latest`.

    Raises:
        RequestInvalid: it is neither.
    """
    if text == LATEST:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        raise RequestInvalid(violations=[Violation(field, f"version {text!r} is neither a number nor {LATEST!r}")])
    return int(text)
