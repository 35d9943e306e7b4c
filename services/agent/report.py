"""Tells the database what one TorchServe serves and how to call it: at once when it changes, else now and then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.agent.client import Token
from services.core.clock import MonotonicClock
from services.core.errors import DatabaseUnavailable
from services.core.outage import Outage
from services.core.settings import Settings
from services.db import deployments
from services.db.database import Database
from services.db.deployments import Observed

_EVERY_SECONDS = 10.0
_NO_TOKEN = Token("", None)


@dataclass(slots=True)
class Reporter:
    """Reports under one agent id."""

    settings: Settings
    database: Database
    agent_id: str
    clock: MonotonicClock = time.monotonic
    _last: tuple[frozenset[Observed], Token] | None = None
    _last_at: float = 0.0
    _outage: Outage = field(init=False)

    def __post_init__(self) -> None:
        self._outage = Outage(away="report_failed", back="report_sent_again", clock=self.clock)

    def report(self, observed: Sequence[Observed], token: Token | None) -> None:
        """Send what is seen; a database that is away gets it with the next look."""
        state = (frozenset(observed), token or _NO_TOKEN)
        if state == self._last and self.clock() - self._last_at < _EVERY_SECONDS:
            return
        host = self.settings.agent_advertise_host or self.settings.host
        try:
            with self.database.write() as session:
                deployments.report_replica(
                    session,
                    self.agent_id,
                    inference_url=f"http://{host}:{self.settings.torchserve_inference_port}",
                    grpc_address=f"{host}:{self.settings.torchserve_grpc_port}",
                    token=state[1].value,
                    token_expire_time=state[1].expire_time,
                    observed=observed,
                )
        except DatabaseUnavailable as err:
            self._outage.miss(error=str(err))
            return
        self._outage.answer()
        self._last, self._last_at = state, self.clock()
