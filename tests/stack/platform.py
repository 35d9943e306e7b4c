"""The platform's own processes on free ports and a state directory of a test: started, killed and stopped by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from services.client.sdk import Trainyard
from services.core.settings import Settings
from services.identity.bootstrap import LOCAL_FILE
from services.up import embedded
from services.up.endpoints import Endpoints
from services.up.probe import grpc_serves
from tests.stack.identity import local_token
from tests.stack.ports import free_port

TEST_TIMINGS = {
    "LEASE_TTL": "1.5",
    "HEARTBEAT": "0.4",
    "REAP_INTERVAL": "0.2",
    "DISPATCH_INTERVAL": "0.2",
    "REDISPATCH_AFTER": "1",
    "RETRY_BASE": "0.2",
    "RECONCILE_INTERVAL": "1",
}


def test_timings() -> dict[str, str]:
    """Return the environment that makes every interval of the protocol as short as tests want it."""
    return {f"TRAINYARD_TIMINGS__{name}": value for name, value in TEST_TIMINGS.items()}


def settings_of(environ: Mapping[str, str], state_dir: Path) -> Settings:
    """Return the settings a child with this environment would read."""
    before = dict(os.environ)
    os.environ.update(environ)
    os.environ["TRAINYARD_STATE_DIR"] = str(state_dir)
    try:
        return Settings()
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def embedded_platform(state_dir: Path, environ: Mapping[str, str] | None = None) -> Iterator[Endpoints]:
    """Run `trainyard up` in the background for the time of the block."""
    full = {**os.environ, "TRAINYARD_STATE_DIR": str(state_dir), **(environ or {})}
    settings = settings_of(full, state_dir)
    endpoints = embedded.start_in_background(settings, full, timeout_seconds=120)
    try:
        yield endpoints
    finally:
        embedded.stop(settings, on_wait=lambda _pid: None)


@dataclass(slots=True)
class Stack:
    """Single processes of the control and data plane over one state directory, without TorchServe."""

    state_dir: Path
    environ: Mapping[str, str]
    address: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, module: str, **environ: str) -> subprocess.Popen[bytes]:
        logs = self.state_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        return self.start(name, "workers", TRAINYARD_WORKER_ID=name)

    def client(self) -> Trainyard:
        return Trainyard(self.address, token=self.token)

    @property
    def token(self) -> str:
        """An administrator's of the default project; calls of raw stubs show it by `tests.stack.identity`."""
        return local_token(self.state_dir)

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def control_plane(
    state_dir: Path, environ: Mapping[str, str] | None = None, *, has_controller: bool = True
) -> Iterator[Stack]:
    """Run an API server and a controller; workers are the caller's to start."""
    state_dir.mkdir(parents=True, exist_ok=True)
    port = free_port()
    full = {
        **os.environ,
        "TRAINYARD_STATE_DIR": str(state_dir),
        "TRAINYARD_API_PORT": str(port),
        "TRAINYARD_METRICS_PORT": "0",
        **(environ or {}),
    }
    migrate = [sys.executable, "-m", "services.up.migrate", "--local-token", str(state_dir / LOCAL_FILE)]
    subprocess.run(migrate, env=full, check=True)
    stack = Stack(state_dir, full, f"127.0.0.1:{port}")
    try:
        stack.start("api", "services.api")
        if has_controller:
            stack.start("controller", "services.controller")
        wait_until(grpc_serves(stack.address), what="the API server answers", limit_seconds=60)
        yield stack
    finally:
        stack.stop()


def wait_until(condition: Callable[[], bool], *, what: str, limit_seconds: float) -> None:
    deadline = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {limit_seconds} s")
        time.sleep(0.02)


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def seconds_until_gone(processes: list[psutil.Process], *, limit_seconds: float) -> float:
    """Wait until none of them runs; a zombie counts as gone, since nothing of it computes any more."""
    begin = time.monotonic()
    while time.monotonic() - begin < limit_seconds:
        if not any(_runs(process) for process in processes):
            break
        time.sleep(0.005)
    return time.monotonic() - begin


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
