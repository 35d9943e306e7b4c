"""A thousand WatchJob streams on one server: memory of each, lateness of events, and what readers cost who never read."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from trainyard.v1 import job_pb2

from services.core.settings import Settings
from services.db import jobs
from services.db.database import Database
from services.db.job_records import Lease
from tests.stack import http2
from tests.stack.builders import make_dataset, make_job
from tests.stack.platform import Stack, control_plane
from tests.stack.queues import send_queues

STREAMS = 1000
JOBS = 50
ROUNDS = 300
PAUSE_SECONDS = 0.05
UNREAD = 100
BACKLOG_LINES = 20_000
LINE = "x" * 480
_WATCH = "/trainyard.v1.JobService/WatchJob"
_HUGE_WINDOW = 2**31 - 1


def run(directory: Path) -> dict[str, Any]:
    token = f"ty_default_bench_{secrets.token_hex(24)}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bootstrap").write_text(token)
    environ = {"TRAINYARD_BOOTSTRAP_TOKEN_FILE": str(directory / "bootstrap"), "TRAINYARD_TOKEN": token}
    with control_plane(directory / "state", environ, has_controller=False) as stack:
        database = Database(Settings(state_dir=directory / "state").resolved_database_url)
        leases = _running_jobs(database, JOBS + 1)
        spread = _measure(stack, database, leases[:JOBS], rounds=ROUNDS, pause_seconds=PAUSE_SECONDS)
        one = _measure(stack, database, leases[:1], rounds=ROUNDS // 10, pause_seconds=10 * PAUSE_SECONDS)
        _append(database, leases[-1], BACKLOG_LINES)
        unread = _unread(stack, _name(leases[-1]), token)
        database.dispose()
    return {"watch": {"streams": STREAMS, f"over_{JOBS}_jobs": spread, "of_one_job": one, "never_read": unread}}


def _measure(
    stack: Stack, database: Database, leases: Sequence[Lease], *, rounds: int, pause_seconds: float
) -> dict[str, Any]:
    """Open the streams, write an event to a job each round, and return lateness and memory."""
    api = psutil.Process(stack.processes["api"].pid)
    before = api.memory_info().rss
    command = [sys.executable, "-m", "tests.bench.watchers", stack.address, str(STREAMS), *map(_name, leases)]
    watchers = subprocess.Popen(
        command, env=dict(stack.environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watchers.stdout is not None
    said = watchers.stdout.readline().strip()
    if said != "ready":
        raise RuntimeError(said)
    opened = api.memory_info().rss
    cpu = api.cpu_times()
    begin = time.monotonic()
    for number in range(rounds):
        lease = leases[number % len(leases)]
        with database.write() as session:
            jobs.append_events(session, lease, [("log", {"level": "info", "text": f"{time.time():.6f}"})])
        time.sleep(pause_seconds)
    seconds = time.monotonic() - begin
    used = api.cpu_times()
    # The last event is on its way for no longer than the slowest of them.
    time.sleep(2)
    figures = json.loads(watchers.communicate("")[0])
    return {
        **figures,
        "rss_per_stream_kib": round((opened - before) / STREAMS / 1024, 1),
        "events_per_second": round(figures["events"] / seconds, 1),
        "server_cpu_share": round((used.user + used.system - cpu.user - cpu.system) / seconds, 3),
    }


def _unread(stack: Stack, name: str, token: str) -> dict[str, Any]:
    """Open streams of a long history on connections that nobody reads, with windows as large as they get."""
    api = psutil.Process(stack.processes["api"].pid)
    host, _, port = stack.address.rpartition(":")
    message = job_pb2.WatchJobRequest(name=name).SerializeToString()
    before = api.memory_info().rss
    peak = 0
    with contextlib.ExitStack() as open_connections:
        for _ in range(UNREAD):
            raw = open_connections.enter_context(http2.RawConnection(host, int(port)))
            raw.send(http2.SETTINGS, 0, 0, struct.pack(">HI", http2.INITIAL_WINDOW_SIZE, _HUGE_WINDOW))
            raw.send(http2.WINDOW_UPDATE, 0, 0, (_HUGE_WINDOW - 65_535).to_bytes(4, "big"))
            raw.call(1, _WATCH, message, more=[("authorization", f"Bearer {token}")])
        for _ in range(40):
            time.sleep(0.25)
            peak = max(peak, api.memory_info().rss)
        queued = sum(send_queues(int(port)))
    return {
        "connections": UNREAD,
        "rss_per_connection_kib": round((peak - before) / UNREAD / 1024, 1),
        "kernel_queue_per_connection_kib": round(queued / UNREAD / 1024, 1),
    }


def _running_jobs(database: Database, count: int) -> list[Lease]:
    with database.write() as session:
        dataset = make_dataset(session)
        ids = [make_job(session, dataset.id).id for _ in range(count)]
    leases = []
    for job_id in ids:
        with database.write() as session:
            leases.append(jobs.claim(session, job_id, worker_id=socket.gethostname(), ttl_seconds=3600))
    return leases


def _append(database: Database, lease: Lease, count: int) -> None:
    for _ in range(count // 500):
        with database.write() as session:
            jobs.append_events(session, lease, [("log", {"level": "info", "text": LINE})] * 500)


def _name(lease: Lease) -> str:
    return f"projects/default/jobs/{lease.job_id}"
