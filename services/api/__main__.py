"""`python -m services.api`: serve until SIGTERM, then drain."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

import structlog
from prometheus_client import start_http_server

from services.api.compose import Api
from services.core.errors import DatabaseUnavailable
from services.core.log import configure_logging
from services.core.settings import Settings
from services.db.database import Database
from services.storage.open import open_store

log = structlog.get_logger(__name__)

SCHEMA_PATIENCE_SECONDS = 60.0
SCHEMA_POLL_SECONDS = 0.5
# The default of 5 ms lets a thread that writes hold up every answer; measured with both backends.
SWITCH_INTERVAL_SECONDS = 0.001


def main() -> int:
    settings = Settings()
    configure_logging(level=settings.log_level, as_json=settings.log_json)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    database = Database(settings.resolved_database_url)
    if not await _wait_for_schema(database, stopping):
        return 1
    api = Api(settings, database, open_store(settings))
    metrics = start_http_server(settings.metrics_port, settings.host) if settings.metrics_port else None
    port = await api.start(settings.host, settings.api_port)
    log.info("api_serving", address=f"{settings.host}:{port}")
    await stopping.wait()
    log.info("api_draining")
    await api.stop()
    if metrics is not None:
        metrics[0].shutdown()
    database.dispose()
    log.info("api_stopped")
    return 0


async def _wait_for_schema(database: Database, stopping: asyncio.Event) -> bool:
    """Return whether the schema is the one this code expects, waiting a while for whoever migrates it."""
    end = time.monotonic() + SCHEMA_PATIENCE_SECONDS
    has_said = False
    while not stopping.is_set():
        try:
            if database.is_at_head():
                return True
            why = "the schema is not at its newest revision; migrate the database"
        except DatabaseUnavailable as err:
            why = str(err)
        if time.monotonic() > end:
            log.error("api_gave_up", reason=why)
            return False
        if not has_said:
            log.warning("api_waits_for_database", reason=why)
            has_said = True
        await asyncio.sleep(SCHEMA_POLL_SECONDS)
    return False


if __name__ == "__main__":
    raise SystemExit(main())
