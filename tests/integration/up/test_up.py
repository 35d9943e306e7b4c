"""The embedded default as a user runs it: `trainyard up` with every real part, and nothing left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from services.up import endpoints
from services.up.endpoints import Endpoints
from services.up.lock import LOCK_NAME

ROOT = Path(__file__).parents[3]
READY_SECONDS = 120.0
PARTS = {"api", "controller", "worker", "serving"}


class Platform:
    """One `trainyard up` and every process that it ever started."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.output = state_dir.with_suffix(".out")
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[psutil.Process] = set()

    def trainyard(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*_command(), *arguments]
        return subprocess.run(
            command, env=self._env(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=READY_SECONDS
        )

    def start(self) -> Endpoints:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*_command(), "up"], env=self._env(), cwd=ROOT, stdout=output, stderr=output
            )
        return self.wait_until_ready()

    def wait_until_ready(self) -> Endpoints:
        def is_ready() -> bool:
            assert self.process is None or self.process.poll() is None, self.output.read_text()
            found = endpoints.read(self.state_dir)
            return found is not None and found.is_ready

        until(is_ready, "a ready platform", READY_SECONDS, explain=self._explain)
        found = endpoints.read(self.state_dir)
        assert found is not None
        self.note_processes(found.pid)
        return found

    def note_processes(self, pid: int) -> None:
        up = psutil.Process(pid)
        self._seen |= {up, *up.children(recursive=True)}

    def survivors(self) -> list[str]:
        found = []
        for each in self._seen:
            # One may end while it is looked at.
            with suppress(psutil.NoSuchProcess):
                if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{each.pid} {' '.join(each.cmdline())}")
        return found

    def _env(self) -> dict[str, str]:
        return {**os.environ, "TRAINYARD_STATE_DIR": str(self.state_dir), "OMP_NUM_THREADS": "1"}

    def _explain(self) -> str:
        logs = sorted((self.state_dir / "logs").glob("*.log"))
        tails = [f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in logs]
        said = self.output.read_text(errors="replace") if self.output.exists() else ""
        return "\n".join([said, *tails])


def _command() -> list[str]:
    return [sys.executable, "-c", "from services.client.cli import main; main()"]


def until(condition: Callable[[], bool], what: str, seconds: float, *, explain: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}\n{explain()}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("shared") / "state")
    platform.start()
    yield platform
    assert platform.process is not None
    platform.process.kill()
    platform.process.wait()


def test_every_part_is_ready_and_says_where_it_answers(shared: Platform) -> None:
    found = json.loads(shared.trainyard("status", "--json").stdout)

    assert found["is_ready"]
    assert set(found["parts"]) == PARTS
    assert {part["state"] for part in found["parts"].values()} == {"ready"}
    assert all(psutil.pid_exists(part["pid"]) for part in found["parts"].values())
    assert all(Path(part["log"]).exists() for part in found["parts"].values())


def test_the_client_finds_the_platform_of_the_state_directory(shared: Platform) -> None:
    listed = shared.trainyard("recipes", "list", "--json")

    assert listed.returncode == 0, listed.stderr
    assert "detection/yolo_v1" in [recipe["recipe_id"] for recipe in json.loads(listed.stdout)["recipes"]]


def test_a_second_platform_on_the_state_directory_is_refused_with_the_pid_of_the_first(shared: Platform) -> None:
    assert shared.process is not None

    for arguments in (["up"], ["up", "--background"]):
        refused = shared.trainyard(*arguments)

        assert refused.returncode == 1
        assert f"process {shared.process.pid} already runs the platform" in refused.stderr
    assert shared.process.poll() is None


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_killed_part_is_started_again(shared: Platform, part: str) -> None:
    before = shared.wait_until_ready().parts[part]
    assert before.pid is not None

    os.kill(before.pid, signal.SIGKILL)

    def is_back() -> bool:
        found = endpoints.read(shared.state_dir)
        return found is not None and found.is_ready and found.parts[part].restarts == before.restarts + 1

    until(is_back, f"another {part}", READY_SECONDS, explain=shared._explain)
    assert f"{part} was killed by SIGKILL" in shared.output.read_text()
    assert shared.wait_until_ready().parts[part].pid != before.pid


def test_ctrl_c_leaves_no_process_no_lock_and_no_endpoints(shared: Platform) -> None:
    shared.wait_until_ready()
    assert shared.process is not None

    shared.process.send_signal(signal.SIGINT)

    assert shared.process.wait(timeout=60) == 0, shared.output.read_text()
    assert shared.survivors() == []
    assert not (shared.state_dir / LOCK_NAME).exists()
    assert not (shared.state_dir / endpoints.FILE_NAME).exists()


def test_a_killed_platform_leaves_no_process_and_can_be_started_again(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "state")
    platform.start()
    assert platform.process is not None

    platform.process.kill()
    platform.process.wait()

    until(
        lambda: platform.survivors() == [], "the end of every process", 10.0, explain=lambda: str(platform.survivors())
    )
    gone = platform.trainyard("status")
    assert gone.returncode == 1
    assert "no platform runs" in gone.stderr

    started = platform.trainyard("up", "--background", "--json")
    assert started.returncode == 0, started.stderr
    found = Endpoints.model_validate_json(started.stdout)
    platform.note_processes(found.pid)
    stopped = platform.trainyard("down", "--json")

    assert json.loads(stopped.stdout)["stopped"]
    assert platform.survivors() == []
