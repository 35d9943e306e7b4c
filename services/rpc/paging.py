"""Page sizes and page tokens: a token is the key of the last row seen, bound to the question it belongs to."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from services.core.errors import RequestInvalid, Violation

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200
MAX_TOKEN_LENGTH = 1024

T = TypeVar("T")
TimeKey = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the token of those that follow; empty where there are none."""

    items: list[T]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Where a page begins and how long it is. Read one row more than `size`, then `cut`."""

    size: int
    after: tuple[str, ...] | None
    question: str

    @property
    def time_key(self) -> TimeKey | None:
        """Return the (create_time, id) to begin after."""
        if self.after is None:
            return None
        try:
            time, row_id = self.after
            key = datetime.fromisoformat(time), row_id
        except ValueError as err:
            raise _bad_token() from err
        if key[0].tzinfo is None:
            raise _bad_token()
        return key

    def cut(self, rows: Sequence[T], key: Callable[[T], tuple[str, ...]]) -> Page[T]:
        """Keep `size` rows; one row more means that another page follows."""
        items = list(rows[: self.size])
        has_more = len(rows) > self.size
        return Page(items, _encode(self.question, key(items[-1])) if has_more else "")


def by_time(row: Any) -> tuple[str, ...]:
    """Return the key of a row that has `create_time` and `id`."""
    return row.create_time.isoformat(), row.id


def page_request(page_size: int, page_token: str, *question: object) -> PageRequest:
    """Read the paging fields of a list request; `question` is everything else that it asked.

    Raises:
        RequestInvalid: a negative size, or a token of another list.
    """
    if page_size < 0:
        raise RequestInvalid(violations=[Violation("page_size", "must not be negative; 0 takes the default of 50")])
    size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    digest = hashlib.sha256(repr(question).encode()).hexdigest()[:16]
    return PageRequest(size, _decode(digest, page_token) if page_token else None, digest)


def _encode(question: str, key: tuple[str, ...]) -> str:
    return base64.urlsafe_b64encode(json.dumps([question, *key]).encode()).decode().rstrip("=")


def _decode(question: str, token: str) -> tuple[str, ...]:
    if len(token) > MAX_TOKEN_LENGTH:
        # None of ours; and a parser can be made to run out of its stack.
        raise _bad_token()
    try:
        parts = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError as err:
        raise _bad_token() from err
    if not isinstance(parts, list) or not all(_is_key(part) for part in parts) or parts[:1] != [question]:
        raise _bad_token()
    return tuple(parts[1:])


def _is_key(part: object) -> bool:
    # PostgreSQL takes no text with a NUL, not even to compare with.
    return isinstance(part, str) and "\0" not in part


def _bad_token() -> RequestInvalid:
    text = "is not a token of this list; send next_page_token of the page before with the same filters"
    return RequestInvalid(violations=[Violation("page_token", text)])
