"""The supervisor over small real programs: order, restarts, and no process left however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]

# A part that starts a grandchild in a session of its own, which ignores SIGTERM: the hardest to take down.
PART = """
import os, pathlib, signal, subprocess, sys, time
name, directory = sys.argv[1], pathlib.Path(sys.argv[2])
child = subprocess.Popen(
    [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"],
    start_new_session=True,
)
def stop(*_):
    with (directory / "stops").open("a") as file:
        file.write(name + "\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
(directory / (name + ".new")).write_text(f"{os.getpid()} {child.pid}")
os.replace(directory / (name + ".new"), directory / (name + ".pids"))
print(name, "says hello", flush=True)
while True:
    time.sleep(0.05)
"""

PROGRAM = """
import pathlib, sys
from services.up.part import PartSpec
from services.up.supervisor import Observer, Supervisor
import os

directory = pathlib.Path(sys.argv[1])

def spec(name, stage):
    return PartSpec(
        name=name, command=(sys.executable, str(directory / "part.py"), name, str(directory)), env=dict(os.environ),
        log_path=directory / (name + ".log"), probes=((directory / (name + ".pids")).exists,),
        stop_stage=stage, stop_seconds=10.0,
    )

def changed(parts, is_ready):
    print(" ".join(f"{part.spec.name}={part.state}:{part.pid}" for part in parts), flush=True)

def died(part, code, delay):
    print("died", part.spec.name, code, part.log_tail(1), flush=True)

Supervisor([spec("first", 0), spec("last", 1)], Observer(changed, died)).run()
print("over", flush=True)
"""


class Run:
    """A supervisor process and what it printed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "part.py").write_text(PART)
        self.output = directory / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(directory)], cwd=ROOT, stdout=output, stderr=output
            )

    def pids(self, name: str) -> list[int]:
        return [int(pid) for pid in (self.directory / f"{name}.pids").read_text().split()]

    def wait_for(self, text: str) -> str:
        until(lambda: text in self.output.read_text(), f"{text!r} in the output")
        return self.output.read_text()

    def wait_until_ready(self) -> None:
        until(lambda: self.output.read_text().count("=ready") >= 2, "both parts ready")


def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started = Run(tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


def test_a_stop_signal_ends_the_stages_in_order_and_leaves_no_process(run: Run) -> None:
    run.wait_until_ready()
    pids = run.pids("first") + run.pids("last")

    run.process.send_signal(signal.SIGINT)

    assert run.process.wait(timeout=15) == 0
    assert (run.directory / "stops").read_text().split() == ["first", "last"]
    assert not [pid for pid in pids if is_alive(pid)]


def test_killing_the_supervisor_leaves_no_process_of_any_session(run: Run) -> None:
    run.wait_until_ready()
    pids = run.pids("first") + run.pids("last")
    assert all(is_alive(pid) for pid in pids)

    run.process.kill()

    until(lambda: not any(is_alive(pid) for pid in pids), "the end of every part and grandchild", seconds=5.0)


def test_a_killed_part_comes_back_and_what_it_started_is_gone(run: Run) -> None:
    run.wait_until_ready()
    part, grandchild = run.pids("first")
    other = run.pids("last")

    os.kill(part, signal.SIGKILL)

    output = run.wait_for("died first 137")
    assert "first says hello" in output
    until(lambda: run.pids("first")[0] != part, "another first part")
    assert not is_alive(grandchild)
    assert run.pids("last") == other


def test_a_second_signal_does_not_wait_for_a_part_that_will_not_stop(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.wait_until_ready()
    part, grandchild = run.pids("first")
    os.kill(part, signal.SIGSTOP)

    run.process.send_signal(signal.SIGINT)
    run.wait_for("first=stopping")
    run.process.send_signal(signal.SIGINT)

    assert run.process.wait(timeout=8) == 0
    assert not is_alive(part)
    assert not is_alive(grandchild)


REFUSED = """
import os, pathlib, sys
from services.core.environment import UNUSABLE_EXIT
from services.up.part import PartSpec
from services.up.supervisor import Observer, PartRefused, Supervisor

directory = pathlib.Path(sys.argv[1])

def spec(name, code):
    return PartSpec(
        name=name, command=(sys.executable, "-c", code, str(directory)), env=dict(os.environ),
        log_path=directory / (name + ".log"), probes=((directory / name).exists,),
    )

refuses = f"print('error: TRAINYARD_X: is wrong'); raise SystemExit({UNUSABLE_EXIT})"
works = "import pathlib, sys, time; (pathlib.Path(sys.argv[1]) / 'good').touch(); time.sleep(600)"
worked = (
    "import pathlib, sys, time; mark = pathlib.Path(sys.argv[1]) / 'bad'; again = mark.exists(); mark.touch();"
    f"time.sleep(600 if again else 2); raise SystemExit({UNUSABLE_EXIT})"
)
died = lambda part, code, delay: print("died", part.spec.name, code, flush=True)
changed = lambda parts, is_ready: print(*[f"{part.spec.name}={part.state}:{part.pid}" for part in parts], flush=True)
bad = worked if sys.argv[2] == "once ready" else refuses
try:
    Supervisor([spec("good", works), spec("bad", bad)], Observer(changed, died)).run()
except PartRefused as err:
    print("refused:", err, flush=True)
"""


def test_a_part_that_refuses_a_setting_is_not_started_again_and_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tmp_path), "never ready"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert "refused: TRAINYARD_X: is wrong\n" in done.stdout, done.stderr
    assert "died" not in done.stdout
    assert done.stdout.splitlines()[-2] == "good=stopped:None bad=stopped:None"


def test_a_part_that_was_ready_before_it_refused_a_setting_is_started_again(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", REFUSED, str(tmp_path), "once ready"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        told = iter(process.stdout.readline, "")
        assert next(line for line in told if "died" in line or "refused" in line) == "died bad 78\n"
        assert "bad=ready" in next(line for line in told if "bad=ready" in line)
    finally:
        process.terminate()
        process.communicate()


def test_the_guard_needs_nothing_but_the_standard_library() -> None:
    code = textwrap.dedent("""
        import sys
        sys.argv = ["guard"]
        import runpy
        runpy.run_path(r"{path}", run_name="guard")
        assert not [name for name in sys.modules if name.startswith(("services", "workers"))]
    """).format(path=ROOT / "services" / "up" / "guard.py")

    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False).returncode == 0
