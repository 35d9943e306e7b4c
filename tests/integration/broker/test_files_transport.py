"""The broker of files between real processes: nothing lost, nothing doubled, no reader ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from services.broker.app import make_app
from services.broker.sender import RUN_ATTEMPT, Sender
from services.core.settings import Settings

MESSAGES = 100
PATIENCE_SECONDS = 60.0

PRODUCER = f"""
import sys
from services.broker.app import make_app
from services.broker.sender import RUN_ATTEMPT, Sender
from services.core.settings import Settings
sender = Sender(make_app(Settings()))
for number in range({MESSAGES}):
    sender.send(RUN_ATTEMPT, "train.cpu", f"{{sys.argv[1]}}-{{number}}")
"""

CONSUMER = """
import sys
from pathlib import Path
from services.broker.app import make_app, select_queues
from services.core.settings import Settings
app = make_app(Settings())
select_queues(app, ["train.cpu"])
received = Path(sys.argv[1]).open("a", buffering=1)

@app.task(name="train.run_attempt")
def run_attempt(job_id):
    print(job_id, file=received)

app.Worker(concurrency=2, quiet=True, loglevel="WARNING", without_gossip=True, without_mingle=True).start()
"""


def start(code: str, argument: str, state_dir: Path) -> subprocess.Popen[bytes]:
    environ = os.environ | {"TRAINYARD_STATE_DIR": str(state_dir)}
    return subprocess.Popen([sys.executable, "-c", code, argument], env=environ, stderr=subprocess.DEVNULL)


def test_two_producers_reach_two_consumers_with_every_message_once(tmp_path: Path) -> None:
    received = [tmp_path / "first", tmp_path / "second"]
    consumers = [start(CONSUMER, str(path), tmp_path) for path in received]
    producers = [start(PRODUCER, name, tmp_path) for name in ("left", "right")]
    try:
        assert [producer.wait(PATIENCE_SECONDS) for producer in producers] == [0, 0]
        end = time.monotonic() + PATIENCE_SECONDS
        while count(received) < 2 * MESSAGES and time.monotonic() < end:
            time.sleep(0.05)
        assert [consumer.poll() for consumer in consumers] == [None, None]
    finally:
        for process in (*consumers, *producers):
            process.terminate()
        for process in (*consumers, *producers):
            process.wait(PATIENCE_SECONDS)

    messages = sorted(line for path in received for line in path.read_text().split())
    assert messages == sorted(f"{name}-{number}" for name in ("left", "right") for number in range(MESSAGES))
    assert not list((tmp_path / "broker").glob("*.msg"))


def count(paths: list[Path]) -> int:
    return sum(len(path.read_text().split()) for path in paths if path.exists())


def test_a_process_may_use_two_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        sender = Sender(make_app(Settings(state_dir=tmp_path / name)))
        sender.send(RUN_ATTEMPT, "train.cpu", name)
        sender.close()

    for name in ("one", "two"):
        assert len(list((tmp_path / name / "broker").glob("*.train.cpu.msg"))) == 1


def test_making_an_application_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; import services.broker.sender, services.broker.app; sys.exit('torch' in sys.modules)"

    assert start(code, "", tmp_path).wait(PATIENCE_SECONDS) == 0
