"""`python -m services.controller`: run until SIGTERM; any number may run, one of them leads."""

from __future__ import annotations

import signal
import threading

import structlog
from prometheus_client import start_http_server

from services.controller.compose import Controller
from services.core.environment import run_process
from services.core.errors import DatabaseUnavailable
from services.core.log import configure_logging
from services.core.settings import Settings
from services.db.database import Database
from services.db.schema import wait_for_schema
from services.storage.open import open_store

log = structlog.get_logger(__name__)


def main() -> int:
    return run_process(_run)


def _run(settings: Settings) -> int:
    configure_logging(level=settings.log_level, as_json=settings.log_json)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.host)
    database = Database(settings.resolved_database_url)
    try:
        wait_for_schema(database)
    except DatabaseUnavailable as err:
        log.error("controller_gave_up", reason=str(err))
        return 1
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    log.info("controller_started")
    Controller(settings, database, open_store(settings)).run(stopping)
    database.dispose()
    log.info("controller_stopped")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
