"""The API server's process: serve until SIGTERM, then drain."""

from __future__ import annotations

import asyncio
import signal
import sys

import structlog
from prometheus_client import start_http_server

from services.api.compose import Api
from services.core.disk import register_disk
from services.core.environment import run_process
from services.core.errors import DatabaseUnavailable
from services.core.loading import loading
from services.core.log import configure_logging
from services.core.settings import Settings
from services.db.database import Database
from services.db.schema import wait_for_schema
from services.storage.open import open_store

log = structlog.get_logger(__name__)

# The default of 5 ms lets a thread that writes hold up every answer; measured with both backends.
SWITCH_INTERVAL_SECONDS = 0.001


def serve() -> int:
    """Return the exit code of the process."""
    return run_process(_run)


def _run(settings: Settings) -> int:
    configure_logging(level=settings.log_level, as_json=settings.log_json)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    database = Database(settings.resolved_database_url)
    try:
        wait_for_schema(database)
    except DatabaseUnavailable as err:
        log.error("api_gave_up", reason=str(err))
        return 1
    asyncio.run(_serve(settings, database))
    database.dispose()
    log.info("api_stopped")
    return 0


async def _serve(settings: Settings, database: Database) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with loading():
        api = Api(settings, database, open_store(settings))
        register_disk(settings.state_dir)
        metrics = start_http_server(settings.metrics_port, settings.host) if settings.metrics_port else None
        port = await api.start(settings.host, settings.api_port)
    log.info("api_serving", address=f"{settings.host}:{port}")
    await stopping.wait()
    log.info("api_draining")
    await api.stop()
    if metrics is not None:
        metrics[0].shutdown()
