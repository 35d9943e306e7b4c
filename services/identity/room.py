"""Whether projects have bytes left, remembered for a moment: adding up what one stores takes longer than a submission."""

from __future__ import annotations

import time
from collections import OrderedDict

from services.core.clock import MonotonicClock
from services.core.errors import QuotaExceeded
from services.db import quotas
from services.db.session import Session
from services.db.work import Work

REMEMBER_SECONDS = 5.0
MAX_REMEMBERED = 1000


class Room:
    """Answers from at most `REMEMBER_SECONDS` ago. Belongs to one event loop."""

    def __init__(self, work: Work, *, clock: MonotonicClock = time.monotonic) -> None:
        self._work = work
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, str | None]] = OrderedDict()

    async def refusal(self, project: str) -> QuotaExceeded | None:
        """Return why the project may store nothing more, or None where it may."""
        until, why = self._known.get(project, (0.0, None))
        if until <= self._clock():
            why = await self._work.read(lambda session: _why_full(session, project))
            self._known[project] = (self._clock() + REMEMBER_SECONDS, why)
            self._known.move_to_end(project)
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return None if why is None else QuotaExceeded(why)


def _why_full(session: Session, project: str) -> str | None:
    try:
        quotas.check_stored(session, project)
    except QuotaExceeded as err:
        return str(err)
    return None
