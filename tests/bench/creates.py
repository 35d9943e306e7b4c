"""Jobs created in a second, beside a bare server that only inserts and commits, in interleaved rounds."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from trainyard.v1 import job_pb2, job_pb2_grpc

from services.datasets.shape_scenes import write_shape_scenes
from tests.bench.bare_server import METHOD
from tests.bench.figures import percentile
from tests.stack.data import import_folder
from tests.stack.identity import bearer
from tests.stack.platform import control_plane

CALLERS = (1, 16, 64)
SECONDS = 3.0
ROUNDS = 3

Call = Callable[[], Awaitable[Any]]


async def load(call: Call, callers: int) -> dict[str, float]:
    """Call from `callers` loops for a fixed time; return calls a second and their latencies."""
    latencies: list[float] = []
    end = time.perf_counter() + SECONDS

    async def loop() -> None:
        while (begin := time.perf_counter()) < end:
            await call()
            latencies.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(callers)))
    return {
        "per_second": len(latencies) / (time.perf_counter() - begin),
        "p50_ms": 1e3 * percentile(latencies, 0.5),
        "p99_ms": 1e3 * percentile(latencies, 0.99),
    }


async def compare(
    job_address: str, bare_address: str, dataset: str, token: str
) -> dict[str, dict[str, dict[str, float]]]:
    shown = bearer(token)
    async with grpc.aio.insecure_channel(job_address) as jobs, grpc.aio.insecure_channel(bare_address) as bare:
        stub = job_pb2_grpc.JobServiceStub(jobs)
        request = job_pb2.CreateJobRequest(recipe="detection/yolo_v1", preset="tiny", dataset=dataset)
        create = bare.unary_unary(METHOD)
        body = request.SerializeToString()
        targets: dict[str, Call] = {
            "create_job_per_second": lambda: stub.CreateJob(request, metadata=shown),
            "bare_commit_per_second": lambda: create(body),
        }
        rounds: dict[str, dict[str, list[dict[str, float]]]] = {
            name: {str(callers): [] for callers in CALLERS} for name in targets
        }
        for _ in range(ROUNDS):
            for callers in CALLERS:
                for name, call in targets.items():
                    rounds[name][str(callers)].append(await load(call, callers))
    return {
        name: {
            callers: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
            for callers, runs in by_callers.items()
        }
        for name, by_callers in rounds.items()
    }


def run(directory: Path) -> dict[str, Any]:
    bare = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bare_server", str(directory / "bare.sqlite3")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert bare.stdout is not None
        port = int(bare.stdout.readline())
        # Without a controller: nothing else may use the two cores or the writer's lock.
        # Nor may one token's rate, for all callers here share one.
        environ = {"TRAINYARD_API_CALLS_PER_SECOND": "1000000"}
        with control_plane(directory / "state", environ, has_controller=False) as stack, stack.client() as yard:
            write_shape_scenes(directory / "shapes", seed=0, train_images=8, val_images=4)
            dataset = import_folder(yard, directory / "shapes", dataset_id="shapes")
            return asyncio.run(compare(stack.address, f"127.0.0.1:{port}", dataset.name, stack.token))
    finally:
        bare.terminate()
        bare.wait()
