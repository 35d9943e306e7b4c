"""Rows about the API server and its clients: streams without gap or double over kills, drains and slow readers."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
from trainyard.v1 import job_pb2, job_pb2_grpc

from services.client.errors import ApiError
from services.client.sdk import Trainyard
from services.up.probe import grpc_serves
from tests.chaos.ground import Ground, ground, until
from tests.chaos.measure import call_seconds, percentile, resident_bytes
from tests.chaos.row import Registry, Result, Stage
from tests.stack.ports import free_port

REGISTRY = Registry()
LONG = 10**5


@dataclass
class Watcher:
    """One client that follows a job to its end, over however many connections."""

    yard: Trainyard
    job_id: str
    seqs: list[int] = field(default_factory=list)
    reconnects: list[float] = field(default_factory=list)
    error: str = ""
    _broken_at: float | None = None

    def run(self) -> None:
        try:
            for event in self.yard.watch(self.job_id, on_reconnect=self._note_break):
                if self._broken_at is not None:
                    self.reconnects.append(time.monotonic() - self._broken_at)
                    self._broken_at = None
                self.seqs.append(event.seq)
        except Exception as err:
            self.error = f"{type(err).__name__}: {err}"

    def _note_break(self, _retry: int) -> None:
        if self._broken_at is None:
            self._broken_at = time.monotonic()

    def faults(self, expected: list[int]) -> tuple[int, int]:
        """Return how many events are missing, and how many came twice or out of order."""
        missing = len(set(expected) - set(self.seqs))
        return missing, len(self.seqs) - len(set(self.seqs)) + (self.seqs != sorted(self.seqs))


@REGISTRY.row(
    14,
    "API server SIGKILL under 50 streams and Submits",
    "20 kills: 0 gaps, 0 doubles; reconnect p95 <= 3 s; all acknowledged submits present",
)
def api_killed(stage: Stage) -> Result:
    kills, streams = stage.count(20, short=2), 6 if stage.is_short else 50
    acknowledged: list[str] = []
    stopping = threading.Event()
    with ground(stage, workers=("a",), environ={"TRAINYARD_WORKER_SLOTS": "2"}) as here:
        # Fifty threads of this process read every event of these; faster ones would leave the cores to nobody else.
        watched = [here.submit(steps=LONG, every=500, pace_ms=50) for _ in range(2)]
        watchers = [Watcher(here.stack.client(), watched[number % 2]) for number in range(streams)]
        threads = [threading.Thread(target=one.run) for one in watchers]
        submitting = threading.Thread(target=_submit_until, args=(here, acknowledged, stopping))
        for thread in (*threads, submitting):
            thread.start()
        for seed in range(kills):
            time.sleep(0.5 + stage.rng("api", seed).random())
            here.kill("api")
            here.stack.start("api", "services.api")
            # A reconnection is from one kill to the next event; a kill more in between would count twice.
            until(
                lambda kills=seed + 1: all(len(one.reconnects) >= kills for one in watchers),
                what="every stream to go on",
                show=here.log_tail,
                pause=0.1,
            )
        stopping.set()
        submitting.join()
        for job_id in watched:
            here.cancel(job_id)
        for thread in threads:
            thread.join(60)
        here.until_over([*watched, *acknowledged], seconds=180)
        expected = {job_id: [event.seq for event in here.events(job_id)] for job_id in watched}
        faults = [one.faults(expected[one.job_id]) for one in watchers]
        errors = [one.error for one in watchers if one.error]
        stored = {job.name.rpartition("/")[2] for job in here.yard.list_jobs()}
        for one in watchers:
            one.yard.close()
    reconnects = [seconds for one in watchers for seconds in one.reconnects]
    p95 = percentile(reconnects, 0.95)
    lost = len(set(acknowledged) - stored)
    value = {
        "kills": kills,
        "streams": streams,
        "reconnects": len(reconnects),
        "gaps": sum(missing for missing, _ in faults),
        "doubles": sum(double for _, double in faults),
        "reconnect_p95_seconds": round(p95, 2),
        "acknowledged_lost": f"{lost}/{len(acknowledged)}",
        "errors": errors[:3],
    }
    passed = not errors and value["gaps"] == 0 and value["doubles"] == 0 and p95 <= 3 and lost == 0
    return Result(value, passed and bool(reconnects), range(kills))


def _submit_until(here: Ground, acknowledged: list[str], stopping: threading.Event) -> None:
    while not stopping.is_set():
        try:
            acknowledged.append(here.submit(steps=1))
        except ApiError:
            continue
        stopping.wait(0.4)


@REGISTRY.row(
    15,
    "API servers drained one after the other by SIGTERM",
    "health NOT_SERVING; 0 failed unary calls (the client tries again); streams go on; each drain <= 10 s",
)
def api_drained(stage: Stage) -> Result:
    rounds = 1 if stage.is_short else 3
    with ground(stage, workers=("a",)) as here:
        ports = [int(here.stack.address.rpartition(":")[2]), free_port()]
        here.stack.start("api-2", "services.api", TRAINYARD_API_PORT=str(ports[1]))
        until(grpc_serves(f"127.0.0.1:{ports[1]}"), what="the second API server", show=here.log_tail)
        watched = here.submit(steps=LONG, every=500, pace_ms=20)
        both = f"ipv4:127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
        with _client_of(here, both) as yard:
            watcher = Watcher(yard, watched)
            watching = threading.Thread(target=watcher.run)
            watching.start()
            stopping, calls, failures = threading.Event(), [0], []
            caller = threading.Thread(target=_call_until, args=(yard, watched, stopping, calls, failures))
            caller.start()
            drains = []
            for number in range(2 * rounds):
                name, port = ("api", "api-2")[number % 2], ports[number % 2]
                time.sleep(0.5)
                here.stack.processes[name].send_signal(signal.SIGTERM)
                begin = time.monotonic()
                code = here.stack.processes[name].wait(30)
                drains.append(time.monotonic() - begin)
                assert code == 0, here.log_tail()
                here.stack.start(name, "services.api", TRAINYARD_API_PORT=str(port))
                until(grpc_serves(f"127.0.0.1:{port}"), what="the API server", show=here.log_tail)
            stopping.set()
            caller.join()
            here.cancel(watched)
            watching.join(60)
            here.until_over([watched])
            missing, doubles = watcher.faults([event.seq for event in here.events(watched)])
    value = {
        "drains_seconds_max": round(max(drains), 2),
        "calls": calls[0],
        "failed_calls": failures[:3],
        "stream_gaps": missing,
        "stream_doubles": doubles,
        "stream_error": watcher.error,
    }
    passed = not failures and missing == 0 and doubles == 0 and not watcher.error and max(drains) <= 10
    return Result(value, passed and calls[0] > 0)


def _client_of(here: Ground, address: str) -> Trainyard:
    with here.stack.client() as known:
        shown = dict(known._caller._metadata).get("authorization", "").removeprefix("Bearer ")
    return Trainyard(address, token=shown or None)


def _call_until(yard: Trainyard, job_id: str, stopping: threading.Event, calls: list[int], failures: list[str]) -> None:
    while not stopping.is_set():
        try:
            yard.get_job(job_id)
            calls[0] += 1
        except ApiError as err:
            failures.append(f"{err.code}: {err.message}")
        stopping.wait(0.02)


@REGISTRY.row(
    16,
    "clients that open a stream, read one event and sleep",
    "100 streams: the server grows by at most 100 MB; the p99 of the others' calls within 10 % or 10 ms",
)
def slow_readers(stage: Stage) -> Result:
    streams = 10 if stage.is_short else 100
    with ground(stage, workers=("a",)) as here:
        job_id = here.submit(steps=LONG, every=LONG, pace_ms=2)
        here.until_step(job_id, 300 if stage.is_short else 1500)
        pid = here.stack.processes["api"].pid
        calm = call_seconds(here.yard, 300)
        before = resident_bytes(pid)
        stub, metadata, channels = _raw(here, streams)
        calls = [
            one.WatchJob(job_pb2.WatchJobRequest(name=f"projects/default/jobs/{job_id}"), metadata=metadata)
            for one in stub
        ]
        for call in calls:
            next(iter(call))
        opening = call_seconds(here.yard, 100)
        # Their buffers fill first; what the row is about is that they stay open and read nothing.
        time.sleep(0.5 if stage.is_short else 5)
        disturbed = call_seconds(here.yard, 300)
        grown = resident_bytes(pid) - before
        for call in calls:
            call.cancel()
        for channel in channels:
            channel.close()
    p99 = [percentile(one, 0.99) for one in (calm, disturbed, opening)]
    value = {
        "streams": streams,
        "server_grew_mb": round(grown / 2**20, 1),
        "p99_ms": {
            name: round(1000 * found, 1) for name, found in zip(("without", "with", "while opening"), p99, strict=True)
        },
    }
    return Result(value, grown <= 100 * 2**20 and p99[1] <= max(1.1 * p99[0], p99[0] + 0.01))


def _raw(here: Ground, count: int) -> tuple[list[Any], Any, list[grpc.Channel]]:
    with here.stack.client() as known:
        metadata = known._caller._metadata
    # A channel each: streams of one channel would share its flow control. Their windows stay small: a library that
    # widened them would go on reading for a program that sleeps.
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 64 * 1024),
    ]
    channels = [grpc.insecure_channel(here.stack.address, options) for _ in range(count)]
    return [job_pb2_grpc.JobServiceStub(channel) for channel in channels], metadata, channels
