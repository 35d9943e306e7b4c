"""Requests a second of our archives over TorchServe's stock handlers: one TorchServe, the same images, turns about.

Both get two workers of one thread, which is the best that the stock handlers reach on two cores: with more threads
their pools spin against each other. Stock handlers compute a batch at once and get the larger ones.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from services.agent.client import TorchServeClient, TorchServeUnavailable
from services.agent.config import LOOPBACK, Layout, batch_size, startup_seconds
from services.agent.torchserve import TorchServeProcess
from services.core.settings import Settings
from services.core.target import ServingTarget
from tests.bench.bars import serving_lines, serving_verdict
from tests.bench.figures import percentile
from tests.bench.serving_models import Case, cases, jpegs, write_ours, write_stock
from tests.stack.platform import wait_until
from tests.stack.ports import free_port
from workers.engine.processor import has_fast_int8
from workers.families.base import ServingSpec
from workers.families.catalog import CATALOG

WORKERS, CALLERS = 2, 8
STOCK_BATCH_SIZE = 8
ROUNDS = 5
ROUND_SECONDS = 6.0
WARM_UP_SECONDS = 3.0
_SPIN = "import os\nos.nice(19)\nwhile True: pass"


@dataclass(slots=True)
class Load:
    """What callers saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def p99_ms(self) -> float:
        return 1000 * percentile(self.latencies, 0.99)


def run(directory: Path) -> dict[str, Any]:
    images = jpegs()
    with torchserve(directory) as (client, settings):
        figures: dict[str, Any] = {}
        for case in cases():
            rows = _compare(case, client, settings, directory, images)
            # A case takes minutes.
            print("\n".join(serving_lines(rows)), flush=True)
            figures |= rows
    return {"serving": figures}


def _compare(
    case: Case, client: TorchServeClient, settings: Settings, directory: Path, images: Sequence[bytes]
) -> dict[str, Any]:
    """Return the figures of each of our archives over the stock one's: what is served if nothing is set, and int8."""
    archives = {"": write_ours(case, directory, list(images), ServingTarget())}
    if has_fast_int8():
        archives["int8"] = write_ours(case, directory, list(images), ServingTarget(precision="int8"))
    size = batch_size(settings.serving_device)
    ours = {
        precision: Server(archive.path, f"{case.name}{precision}", client, settings, images, size)
        for precision, archive in archives.items()
    }
    stock = Server(write_stock(case, directory), f"stock-{case.name}", client, settings, images, STOCK_BATCH_SIZE)
    differences = {precision: _differences(case, ours[precision], archives[precision].answers) for precision in ours}
    servers = [*ours.values(), stock]
    for server in servers:
        server.callers.call(Load(), WARM_UP_SECONDS)
    for _ in range(ROUNDS):
        for server in servers:
            server.callers.call(server.load, ROUND_SECONDS)
    with _neighbour():
        for server in ours.values():
            server.callers.call(server.beside, ROUND_SECONDS)
    for server in servers:
        server.close()
    return {
        " ".join(filter(None, (case.name, precision))): _figures(
            server, stock, archives[precision].form, *differences[precision]
        )
        for precision, server in ours.items()
    }


def _figures(
    ours: Server, stock: Server, form: str, differences: Mapping[str, float | None], is_equal: bool
) -> dict[str, Any]:
    figures = {
        "ours": round(ours.load.per_second, 2),
        "stock": round(stock.load.per_second, 2),
        "ratio": round(ours.load.per_second / stock.load.per_second, 2),
        "p50_ours": round(1000 * statistics.median(ours.load.latencies), 1),
        "p99_ours": round(ours.load.p99_ms, 1),
        "p99_stock": round(stock.load.p99_ms, 1),
        "loss_beside_busy_process": round(1 - ours.beside.per_second / ours.load.per_second, 3),
        "form": form,
        "largest_differences": differences,
    }
    return {**figures, "passed": serving_verdict(figures, has_equal_answers=is_equal)}


class Server:
    """One archive with its workers up, who calls it, and what they saw quietly and beside a busy process."""

    def __init__(
        self,
        archive: Path,
        name: str,
        client: TorchServeClient,
        settings: Settings,
        images: Sequence[bytes],
        batch_size: int,
    ) -> None:
        self._name, self._client = name, client
        self.load, self.beside = Load(), Load()
        client.batch_size = batch_size
        shutil.copy(archive, Layout(settings.resolved_torchserve_dir).model_store)
        client.register(archive.name, name=name)
        self._version = client.models()[name][0].version
        client.scale(name, self._version, workers=WORKERS)
        wait_until(self._is_ready, what=f"workers of {name}", limit_seconds=120)
        self.callers = Callers(settings.torchserve_inference_port, name, client.inference_token.value, images)

    def close(self) -> None:
        self._client.unregister(self._name, self._version)

    def _is_ready(self) -> bool:
        workers = self._client.models()[self._name][0].workers
        return len(workers) == WORKERS and all(worker.is_ready for worker in workers)


class Callers:
    """Eight threads that ask one model again and again, each over its own connection.

    Without an HTTP library: what callers compute is taken from the cores of whoever answers them, and most from who
    answers most.
    """

    def __init__(self, port: int, name: str, token: str, images: Sequence[bytes]) -> None:
        self._port, self._name = port, name
        head = (
            f"POST /predictions/{name} HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: image/jpeg\r\nContent-Length: "
        )
        self._requests = [f"{head}{len(image)}\r\n\r\n".encode() + image for image in images]

    def call(self, load: Load, seconds: float) -> None:
        """Ask for this long, and add what was seen."""
        begin = time.perf_counter()
        end = begin + seconds
        threads = [threading.Thread(target=self._ask_until, args=(end, load, n)) for n in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        load.seconds += time.perf_counter() - begin

    def answers(self) -> list[Any]:
        """Return the answers to all images, one after the other."""
        with self._connect() as connection, connection.makefile("rb") as stream:
            return [json.loads(self._ask(connection, stream, request)) for request in self._requests]

    def _ask_until(self, end: float, load: Load, first: int) -> None:
        with self._connect() as connection, connection.makefile("rb") as stream:
            for request in itertools.islice(itertools.cycle(self._requests), first, None):
                begin = time.perf_counter()
                if begin >= end:
                    break
                self._ask(connection, stream, request)
                load.latencies.append(time.perf_counter() - begin)

    def _connect(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self._port), timeout=60)

    def _ask(self, connection: socket.socket, stream: BinaryIO, request: bytes) -> bytes:
        connection.sendall(request)
        status = stream.readline()
        length = 0
        while (line := stream.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = stream.read(length)
        if status.split()[1:2] != [b"200"]:
            raise RuntimeError(f"{self._name} answered {status!r}: {body[:500]!r}")
        return body


def _differences(
    case: Case, server: Server, answers: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, float | None], bool]:
    """Return the largest differences between served answers and the eager fp32 network's, None where there is no measure.

    The second value says whether all are within what the family's parity gate allows.
    """
    handler = CATALOG[case.recipe].load_handler()(ServingSpec(case.input_shape, case.constants))
    largest: dict[str, float] = {}
    is_equal = True
    for document, expected in zip(server.callers.answers(), answers, strict=True):
        (actual,) = document["predictions"]
        report = handler.compare(json.loads(json.dumps(expected)), actual)
        is_equal = is_equal and report.passed
        for name, value in report.differences.items():
            largest[name] = max(largest.get(name, 0.0), round(float(value), 6))
    return {name: value if math.isfinite(value) else None for name, value in largest.items()}, is_equal


@contextmanager
def torchserve(directory: Path) -> Iterator[tuple[TorchServeClient, Settings]]:
    """Run one TorchServe as an agent does."""
    names = ("inference", "management", "metrics", "grpc", "grpc_management")
    ports = {f"torchserve_{name}_port": free_port() for name in names}
    settings = Settings(state_dir=directory / "state", serving_threads=1, **ports)  # type: ignore[arg-type]
    layout = Layout(settings.resolved_torchserve_dir)
    # The stock archive of the detector imports the network from here.
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    server = TorchServeProcess(settings, layout)
    layout.create()
    server.ensure_running()
    client = TorchServeClient(
        management_url=f"http://127.0.0.1:{settings.torchserve_management_port}",
        inference_url=f"http://127.0.0.1:{settings.torchserve_inference_port}",
        key_file=layout.key_file,
        batch_size=batch_size(settings.serving_device),
        startup_seconds=startup_seconds(settings),
    )
    try:
        wait_until(lambda: _answers(client), what="TorchServe", limit_seconds=60)
        yield client, settings
    finally:
        client.close()
        server.stop()


@contextmanager
def _neighbour() -> Iterator[None]:
    """Keep one core busy at the lowest priority."""
    process = subprocess.Popen([sys.executable, "-c", _SPIN])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _answers(client: TorchServeClient) -> bool:
    try:
        return client.answers()
    except TorchServeUnavailable:
        return False
