"""Pages by key, newest first: the last (create_time, id) seen is where the next page begins."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

Key = tuple[datetime, str]


def newest_first(query: sa.Select[Any], table: sa.Table, *, page_size: int, after: Key | None) -> sa.Select[Any]:
    """Cut one page out of `query`. A row inserted between two pages is newer than both and shifts nothing."""
    time, key = table.c.create_time, table.c.id
    if after is not None:
        last = sa.tuple_(sa.literal(after[0], time.type), sa.literal(after[1], key.type))
        query = query.where(sa.tuple_(time, key) < last)
    return query.order_by(time.desc(), key.desc()).limit(page_size)
