"""Ids that sort by creation time: lower-case ULIDs, 26 characters, safe in object keys and names."""

from __future__ import annotations

from ulid import ULID


def new_id() -> str:
    return str(ULID()).lower()
