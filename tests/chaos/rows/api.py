"""Rows about the API server and its clients: streams without gap or double, limits, cancellations that always end."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from trainyard.v1 import job_pb2, job_pb2_grpc

from services.client.errors import ApiError
from services.client.sdk import Trainyard
from services.core.states import TERMINAL, JobState
from services.up.probe import grpc_serves
from tests.chaos.ground import Ground, ground, until
from tests.chaos.measure import percentile, resident_bytes, terminal_events
from tests.chaos.row import Registry, Result, Stage
from tests.stack import http2, identity
from tests.stack.platform import free_port

REGISTRY = Registry()
LONG = 10**5
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED


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

    @property
    def is_broken(self) -> bool:
        return self._broken_at is not None

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
        watched = [here.submit(steps=LONG, every=500, pace_ms=20) for _ in range(2)]
        watchers = [Watcher(here.stack.client(), watched[number % 2]) for number in range(streams)]
        threads = [threading.Thread(target=one.run) for one in watchers]
        submitting = threading.Thread(target=_submit_until, args=(here, acknowledged, stopping))
        for thread in (*threads, submitting):
            thread.start()
        for seed in range(kills):
            time.sleep(0.5 + stage.rng("api", seed).random())
            here.kill("api")
            here.stack.start("api", "services.api")
            until(grpc_serves(here.stack.address), what="the API server", show=here.log_tail)
            # A reconnection is from one kill to the next event; a kill more in between would count twice.
            until(lambda: not any(one.is_broken for one in watchers), what="every stream to go on", show=here.log_tail)
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
        calm = _latencies(here, 300)
        before = resident_bytes(pid)
        stub, metadata, channels = _raw(here, streams)
        calls = [
            one.WatchJob(job_pb2.WatchJobRequest(name=f"projects/default/jobs/{job_id}"), metadata=metadata)
            for one in stub
        ]
        for call in calls:
            next(iter(call))
        opening = _latencies(here, 100)
        # Their buffers fill first; what the row is about is that they stay open and read nothing.
        time.sleep(0.5 if stage.is_short else 5)
        disturbed = _latencies(here, 300)
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


def _latencies(here: Ground, count: int) -> list[float]:
    found = []
    for _ in range(count):
        begin = time.monotonic()
        list(zip(range(1), here.yard.list_jobs(), strict=False))
        found.append(time.monotonic() - begin)
    return found


@REGISTRY.row(
    17,
    "cancelled while queued, running, exporting, twice, and racing the end",
    "200/200 with exactly one terminal event; queued within 100 ms; running within 1 s and a step; no trainer left",
)
def cancelled(stage: Stage) -> Result:
    count = stage.count(200, short=8)
    queued: list[float] = []
    running: list[float] = []
    with ground(stage, environ={"TRAINYARD_WORKER_SLOTS": "3"}) as here:

        def one(seed: int) -> None:
            rng = random.Random(f"cancel:{seed}")
            _cancel_one(here, rng, _KINDS[seed % len(_KINDS)], queued, running)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(one, range(count)))
        found = [job.name.rpartition("/")[2] for job in here.yard.list_jobs()]
        here.until_over(found, seconds=180)
        ends = [terminal_events(here.events(job_id)) for job_id in found]
        right = sum(len(end) == 1 for end in ends)
        until(lambda: not _trainers(here), what="every trainer to go", show=here.log_tail)
    value = {
        "one_terminal_event": f"{right}/{len(found)}",
        "ended_as": {kind: sum(end == [kind] for end in ends) for kind in ("cancelled", "succeeded", "failed")},
        "queued_seconds_max": round(max(queued, default=0), 3),
        "running_seconds_p95": round(percentile(running, 0.95), 2),
        "running_seconds_max": round(max(running, default=0), 2),
    }
    passed = right == len(found) == count and max(queued) <= 0.1 and percentile(running, 0.95) <= 1.5
    return Result(value, passed, range(count))


_KINDS = ("queued", "running", "running", "export", "twice", "racing")


def _cancel_one(here: Ground, rng: random.Random, kind: str, queued: list[float], running: list[float]) -> None:
    fields: dict[str, Any] = {"steps": LONG, "pace_ms": 50}
    if kind in ("export", "racing"):
        fields = {"steps": 5, "pace_ms": 5, "golden_ms": 300 if kind == "export" else 0}
    job_id = here.submit(**fields)
    if kind == "queued":
        begin = time.monotonic()
        here.cancel(job_id)
        if here.job(job_id).state is JobState.CANCELLED and not here.attempts(job_id):
            queued.append(time.monotonic() - begin)
        return
    until(
        lambda: here.job(job_id).progress_step >= (1 if kind != "export" else 5),
        what=f"{kind} {job_id}",
        show=here.log_tail,
    )
    time.sleep(rng.random() * 0.1)
    begin = time.monotonic()
    here.cancel(job_id)
    if kind == "twice":
        here.cancel(job_id)
    here.until_state(job_id, *TERMINAL)
    if kind in ("running", "twice"):
        running.append(time.monotonic() - begin)


def _trainers(here: Ground) -> list[int]:
    return [one.pid for name in "ab" for one in here.family(name) if any(part in one.cwd() for part in ("attempts/",))]


@REGISTRY.row(
    33,
    "API abuse: too large messages, more streams than allowed, pings without end, no deadlines; and a flood of calls",
    "refused with RESOURCE_EXHAUSTED or the connection closed; no crash; a good client's p99 at most doubles (or 20 ms); "
    "in the flood, which fills a core of its own, its median does",
)
def abuse(stage: Stage) -> Result:
    count = 40 if stage.is_short else 220
    with ground(stage, workers=()) as here:
        pid = here.stack.processes["api"].pid
        job_id = here.submit(steps=1)
        calm = _latencies(here, 200)
        with here.stack.client() as known:
            metadata = known._caller._metadata
        with _beside(_misbehave, here.stack.address, metadata, job_id, 300 if stage.is_short else 2600) as abused:
            disturbed = _patient_latencies(here, count)
        with _beside(_call_without_pause, here.stack.address, metadata) as flooded:
            drowned = _patient_latencies(here, count)
        is_alive = here.stack.processes["api"].poll() is None and here.stack.processes["api"].pid == pid
        here.yard.get_job(job_id)
    said = {**abused[0], "calls": flooded[0]}
    at = {"without": calm, "with abuse": disturbed, "in the flood": drowned}
    ms = {name: [round(1000 * percentile(found, part), 1) for part in (0.5, 0.99)] for name, found in at.items()}
    value = {"answers": said, "server_alive": is_alive, "p50_p99_ms": ms}
    allowed = {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "closed", "GOAWAY"}
    is_refused = "OK" not in said["message of 5 MiB"] and set(said["pings"]) <= {"GOAWAY", "closed"}
    # A tenth of the streams is within what one caller may have.
    is_refused &= stage.is_short or "RESOURCE_EXHAUSTED" in said["streams"]
    is_fine = all(_is_near(ms["without"][at], ms[name][at]) for name, at in (("with abuse", 1), ("in the flood", 0)))
    wrong = {code for found in said.values() for code in found} - allowed
    return Result(value, is_alive and not wrong and is_refused and is_fine)


def _is_near(calm_ms: float, disturbed_ms: float) -> bool:
    return disturbed_ms <= max(2 * calm_ms, calm_ms + 20)


FLOOD_CALLERS = 400
"""More than a token's rate lets in within the patience of the server."""


@contextmanager
def _beside(act: Callable[..., Any], *about: Any) -> Iterator[list[Any]]:
    """Run `act(*about, started, ended)` in a process of its own meanwhile; the list holds what it returned at the end.

    It shares no interpreter with the good client, which would otherwise wait for it and not for the server.
    """
    spawn = multiprocessing.get_context("spawn")
    started, ended, heard = spawn.Event(), spawn.Event(), spawn.Queue()
    process = spawn.Process(target=_report, args=(heard, act, *about, started, ended))
    process.start()
    found: list[Any] = []
    try:
        assert started.wait(60)
        yield found
    finally:
        ended.set()
        found.append(heard.get(timeout=60))
        process.join()


def _report(heard: Any, act: Callable[..., Any], *about: Any) -> None:
    heard.put(act(*about))


def _misbehave(
    address: str, metadata: Any, job_id: str, streams: int, started: Any, ended: Any
) -> dict[str, list[str]]:
    """Hold as many streams as one gets, and send too large messages and pings until told to end."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channels = [grpc.insecure_channel(address, options) for _ in range(4)]
    stubs = [job_pb2_grpc.JobServiceStub(channel) for channel in channels]
    codes: dict[str, set[str]] = {"message of 5 MiB": set(), "streams": set(), "pings": set()}
    calls = _open_streams(stubs, metadata, job_id, streams)
    started.set()
    while not ended.is_set():
        codes["message of 5 MiB"].add(_code(lambda: stubs[0].CreateJob(_huge(5), metadata=metadata)))
        codes["pings"].add(_ping_without_pause(address))
    for call in calls:
        call.cancel()
    codes["streams"] = {call.code().name for call in calls}
    for channel in channels:
        channel.close()
    return {name: sorted(found) for name, found in codes.items()}


def _ping_without_pause(address: str) -> str:
    """Send pings until the server has enough, and tell how it said so."""
    host, _, port = address.rpartition(":")
    with http2.RawConnection(host, int(port)) as raw:
        try:
            raw.send_at_once(http2.PING, [bytes(8)] * 1000)
            return "GOAWAY" if any(frame.kind == http2.GOAWAY for frame in raw.frames()) else "closed"
        except TimeoutError:
            # Silent for 10 s and still there: the server took them all.
            return "open"
        except OSError:
            return "closed"


def _open_streams(stubs: list[Any], metadata: Any, job_id: str, count: int) -> list[Any]:
    request = job_pb2.WatchJobRequest(name=f"projects/default/jobs/{job_id}")
    calls = [stubs[number % len(stubs)].WatchJob(request, metadata=metadata) for number in range(count)]
    # The server opens them one after the other and refuses those beyond its limit.
    deadline = time.monotonic() + (2 if count < 1000 else 30)
    while time.monotonic() < deadline and not any(call.done() and call.code() is REFUSED for call in calls):
        time.sleep(0.1)
    return calls


def _call_without_pause(address: str, metadata: Any, started: Any, ended: Any) -> list[str]:
    return sorted(asyncio.run(_flood_codes(address, metadata, started, ended)))


def _huge(mib: int) -> job_pb2.CreateJobRequest:
    return job_pb2.CreateJobRequest(recipe="detection/patterns", display_name="x" * (mib << 20))


async def _flood_codes(address: str, metadata: Any, started: Any, ended: Any) -> set[str]:
    """Call from many callers at once, each again as soon as it has its answer, and return the codes."""
    request = job_pb2.GetJobRequest(name="projects/default/jobs/nothing")
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(4)]
    codes: set[str] = set()

    async def call_again_and_again(stub: Any) -> None:
        while not ended.is_set():
            try:
                await stub.GetJob(request, metadata=metadata)
            except grpc.aio.AioRpcError as err:
                codes.add("OK" if err.code() is grpc.StatusCode.NOT_FOUND else err.code().name)
            started.set()

    stubs = [job_pb2_grpc.JobServiceStub(channel) for channel in channels]
    await asyncio.gather(*(call_again_and_again(stubs[number % 4]) for number in range(FLOOD_CALLERS)))
    for channel in channels:
        await channel.close()
    return codes


def _code(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as err:
        return str(err.code().name)  # type: ignore[attr-defined]
    return "OK"


def _patient_latencies(here: Ground, count: int) -> list[float]:
    """Time calls of a client with a token of its own, as another user has."""
    token = identity.admit(here.database, "neighbour")
    found = []
    with Trainyard(here.stack.address, "neighbour", token=token) as yard:
        for _ in range(count):
            begin = time.monotonic()
            list(zip(range(1), yard.list_jobs(), strict=False))
            found.append(time.monotonic() - begin)
            time.sleep(0.01)
    return found
