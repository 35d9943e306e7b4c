"""Carries out what transactions asked for, at least once each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from services.core.errors import PlatformError
from services.db import outbox
from services.db.database import Database

log = structlog.get_logger(__name__)

BATCH = 20
RETRY_SECONDS = 30.0
REMEMBER_SECONDS = 7 * 24 * 3600.0

Effect = Callable[[outbox.Item], None]


class Effects:
    """Runs the effect of each outbox item that is due; one that fails is due again after a while."""

    def __init__(self, database: Database, effects: Mapping[str, Effect]) -> None:
        self._database = database
        self._effects = effects

    def tick(self) -> None:
        while items := self._take():
            for item in items:
                self._carry_out(item)

    def forget(self) -> None:
        """Drop the traces of effects carried out long ago."""
        with self._database.write() as session:
            outbox.forget(session, older_than_seconds=REMEMBER_SECONDS)

    def _take(self) -> list[outbox.Item]:
        with self._database.write() as session:
            return outbox.take(session, limit=BATCH, retry_after_seconds=RETRY_SECONDS)

    def _carry_out(self, item: outbox.Item) -> None:
        effect = self._effects.get(item.kind)
        if effect is None:
            # Asked for by a later version of the platform; its controller will come.
            log.warning("effect_unknown", kind=item.kind)
            return
        try:
            effect(item)
        except PlatformError as err:
            log.warning("effect_postponed", kind=item.kind, tries=item.tries, reason=err.reason)
            return
        with self._database.write() as session:
            outbox.done(session, item.id)
