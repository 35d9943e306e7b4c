"""The audit log of one server: lines that no transaction of a call carried are written a moment later, in batches.

A flood of refused calls fills no disk: above `LINES_PER_SECOND` lines are counted instead, and the
count is written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextvars import Context

import structlog
from prometheus_client import Counter

from services.core.clock import MonotonicClock
from services.core.errors import PlatformError
from services.db import audit
from services.db.audit import AuditLine
from services.db.work import Work

log = structlog.get_logger(__name__)

LINES_PER_SECOND = 20.0
BURST_LINES = 500.0
FLUSH_SECONDS = 0.25
DROPPED = Counter("trainyard_audit_dropped_total", "Lines of the audit log that were counted instead of written.")


class Trail:
    """Belongs to one event loop. Close it before the `Work` it writes with."""

    def __init__(self, work: Work, *, clock: MonotonicClock = time.monotonic) -> None:
        self._work = work
        self._clock = clock
        self._waiting: list[AuditLine] = []
        self._dropped = 0
        self._level, self._seen_at = BURST_LINES, clock()
        self._flushing: asyncio.Task[None] | None = None

    def add(self, line: AuditLine) -> None:
        """Have a line written soon."""
        if not self._take():
            self._dropped += 1
            DROPPED.inc()
            return
        self._waiting.append(line)
        if self._flushing is None:
            # Not in the context of the call, whose own line a write of it would carry along.
            self._flushing = asyncio.create_task(self._flush_soon(), context=Context())

    async def close(self) -> None:
        """Write what waits."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        await self._flush()

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_SECONDS)
        # From here on a new line starts a new flush, so none waits for ever.
        self._flushing = None
        await self._flush()

    async def _flush(self) -> None:
        lines, self._waiting = self._waiting, []
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(AuditLine(action="audit", resource=f"{dropped} lines left out", outcome="DROPPED"))
        if not lines:
            return
        try:
            await self._work.write(lambda session: audit.write(session, lines))
        except Exception as err:  # noqa: BLE001 - a server must end in order whatever its records meet
            # Kept in the log of the process at least: nobody may hide behind an outage.
            _tell(lines, err)

    def _take(self) -> bool:
        now = self._clock()
        self._level = min(BURST_LINES, self._level + (now - self._seen_at) * LINES_PER_SECOND)
        self._seen_at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


def _tell(lines: Sequence[AuditLine], err: Exception) -> None:
    for line in lines:
        log.error(
            "audit_not_stored",
            reason=getattr(err, "reason", PlatformError.reason),
            action=line.action,
            token_id=line.token_id,
            peer=line.peer,
            resource=line.resource,
            outcome=line.outcome,
            call_id=line.request_id,
        )
