"""The row about callers that abuse the API: refused, and a good client hardly notices."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from trainyard.v1 import job_pb2, job_pb2_grpc

from services.client.sdk import Trainyard
from tests.chaos.ground import Ground, ground
from tests.chaos.measure import call_seconds, percentile
from tests.chaos.row import Registry, Result, Stage
from tests.stack import http2, identity

REGISTRY = Registry()
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED
FLOOD_CALLERS = 400
"""More than a token's rate lets in within the patience of the server."""


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
        calm = call_seconds(here.yard, 200)
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
    # A tenth of the streams is within what one caller may have, and a short flood may end before its callers' patience.
    is_refused &= stage.is_short or all("RESOURCE_EXHAUSTED" in said[name] for name in ("streams", "calls"))
    is_fine = all(_is_near(ms["without"][at], ms[name][at]) for name, at in (("with abuse", 1), ("in the flood", 0)))
    wrong = {code for found in said.values() for code in found} - allowed
    return Result(value, is_alive and not wrong and is_refused and is_fine)


def _is_near(calm_ms: float, disturbed_ms: float) -> bool:
    return disturbed_ms <= max(2 * calm_ms, calm_ms + 20)


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
    with Trainyard(here.stack.address, "neighbour", token=token) as yard:
        return call_seconds(yard, count, pause_seconds=0.01)
