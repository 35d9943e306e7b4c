"""python -m services.agent: runs TorchServe and keeps it serving what deployments ask for.

With --no-launch someone else runs TorchServe with the configuration this process writes first.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import socket
import sys
import threading
from typing import IO

from services.agent import readiness
from services.agent.agent import Agent
from services.agent.config import Layout, write_config
from services.core.disk import register_disk
from services.core.environment import run_process
from services.core.log import configure_logging
from services.core.settings import Settings
from services.db.database import Database
from services.storage.open import open_store


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.agent", description=__doc__)
    parser.add_argument("--no-launch", action="store_true", help="reconcile a TorchServe that someone else runs")
    options = parser.parse_args(arguments)
    return run_process(lambda settings: _run(settings, is_launching=not options.no_launch))


def _run(settings: Settings, *, is_launching: bool) -> int:
    configure_logging(level=settings.log_level, as_json=settings.log_json)
    layout = Layout(settings.resolved_torchserve_dir.absolute())
    write_config(settings, layout)
    lock = _take_lock(layout)
    if lock is None:
        sys.stderr.write(f"another agent already works in {layout.root}\n")
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if settings.metrics_port:
        register_disk(layout.root)
    database = Database(settings.resolved_database_url)
    agent = Agent(
        settings,
        database=database,
        objects=open_store(settings),
        agent_id=settings.agent_id or socket.gethostname(),
        is_launching=is_launching,
    )
    if settings.metrics_port:
        readiness.serve(settings.host, settings.metrics_port, agent.is_ready)
    agent.run(stop)
    database.dispose()
    lock.close()
    return 0


def _take_lock(layout: Layout) -> IO[str] | None:
    """Hold the directory for this process: two agents would fight over one TorchServe."""
    stream = (layout.root / "agent.lock").open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream


if __name__ == "__main__":
    sys.exit(main())
