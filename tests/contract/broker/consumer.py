"""A consumer process that takes messages as a worker does and writes down each one it runs.

`python consumer.py QUEUE LOG SLOTS HOLD`: a task appends its argument to LOG, then waits while the file HOLD exists.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from services.broker.app import make_app, select_queues
from services.broker.sender import RUN_ATTEMPT
from services.core.settings import Settings


def main(queue: str, log: str, slots: str, hold: str) -> int:
    app = make_app(Settings())
    select_queues(app, [queue])
    stream = Path(log).open("a", buffering=1)  # noqa: SIM115 - for the life of the process

    @app.task(name=RUN_ATTEMPT)
    def run_attempt(argument: str) -> None:
        stream.write(f"{argument}\n")
        while Path(hold).exists():
            threading.Event().wait(0.02)

    worker = app.Worker(
        concurrency=int(slots),
        quiet=True,
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
