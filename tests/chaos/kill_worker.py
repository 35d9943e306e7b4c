"""Kill a worker with SIGKILL at random steps: is the trainer gone, who goes on, are the final weights the same?"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainyard.v1 import job_pb2

from services.client.sdk import Trainyard
from services.datasets.shape_scenes import write_shape_scenes
from services.db.database import Database
from tests.chaos.measure import loses_little
from tests.stack import invariants
from tests.stack.data import import_folder
from tests.stack.platform import Stack, control_plane, descendants, seconds_until_gone, settings_of, test_timings

LEASE_SECONDS = 1.5
WORKERS = ("worker-a", "worker-b", "worker-c")
"""One more than a kill needs, so that none waits for the last one's restart."""
STEPS = 60
INTERVAL = 10
"""Steps between checkpoints."""
CONFIG: dict[str, Any] = {
    "runtime": {"precision": "fp32", "channels_last": "off", "seed": 7},
    "limits": {
        "max_steps": STEPS,
        "checkpoint_every_steps": INTERVAL,
        "evaluate_every_steps": 30,
        "sample_every_steps": STEPS,
        "log_every_steps": 1,
    },
}


@dataclass(frozen=True, slots=True)
class Kill:
    """What one kill showed."""

    seed: int
    step: int
    child_gone_seconds: float
    reclaimed_seconds: float
    redone_steps: int
    attempts: int
    is_equal: bool


def submit(yard: Trainyard) -> str:
    name: str = yard.create_job("detection/yolo_v1", dataset="shapes", preset="tiny", config=CONFIG).name
    return name


def final_sha256(yard: Trainyard, job: str) -> str:
    newest = next(iter(yard.list_checkpoints(job)))
    assert newest.step == STEPS, f"the last checkpoint is at step {newest.step}"
    return next(file.sha256 for file in newest.files if file.name == "model.safetensors")


def run_through(yard: Trainyard, job: str) -> str:
    for _ in yard.watch(job):
        pass
    done = yard.get_job(job)
    assert done.state == job_pb2.JOB_STATE_SUCCEEDED, f"{job}: {done.failure.message}\n{done.failure.log_tail}"
    return final_sha256(yard, job)


def kill_once(stack: Stack, yard: Trainyard, *, seed: int, expected: str) -> Kill:
    """Run the job, kill the worker that trains it at a random step, and follow it to its end."""
    rng = random.Random(seed)
    target = rng.randrange(1, STEPS)
    job = submit(yard)
    worker = ""
    killed_at: float | None = None
    step = gone = reclaimed = 0.0
    resumed_at: int | None = None
    for event in yard.watch(job):
        kind = event.WhichOneof("payload")
        if kind == "state_change" and event.state_change.state == job_pb2.JOB_STATE_RUNNING:
            worker = event.state_change.worker_id
            if killed_at is not None:
                reclaimed = event.create_time.ToDatetime().timestamp() - killed_at
        if kind == "step" and killed_at is not None and resumed_at is None:
            resumed_at = event.step.step
        if kind == "step" and killed_at is None and event.step.step >= target:
            time.sleep(rng.random() * 0.05)
            step = event.step.step
            victims = descendants(stack.processes[worker].pid)
            killed_at = _utc_now()
            stack.processes[worker].send_signal(signal.SIGKILL)
            gone = seconds_until_gone(victims, limit_seconds=10)
            stack.processes[worker].wait()
            stack.start_worker(worker)
    done = yard.get_job(job)
    assert done.state == job_pb2.JOB_STATE_SUCCEEDED, f"{job}: {done.failure.message}\n{done.failure.log_tail}"
    return Kill(
        seed=seed,
        step=int(step),
        child_gone_seconds=round(gone, 3),
        reclaimed_seconds=round(reclaimed, 3),
        redone_steps=max(0, int(step) - (resumed_at or STEPS) + 1),
        attempts=done.attempt,
        is_equal=final_sha256(yard, job) == expected,
    )


def _utc_now() -> float:
    # `Timestamp.ToDatetime()` is naive UTC; its `.timestamp()` shifts by the local zone, and so must this.
    from datetime import UTC, datetime

    return datetime.now(UTC).replace(tzinfo=None).timestamp()


def run(directory: Path, *, seeds: range, say: Callable[[str], None] = print) -> dict[str, Any]:
    with control_plane(directory / "state", test_timings()) as stack:
        for name in WORKERS:
            stack.start_worker(name)
        with stack.client() as yard:
            write_shape_scenes(directory / "shapes", seed=0, train_images=64, val_images=16)
            import_folder(yard, directory / "shapes", dataset_id="shapes")
            expected = run_through(yard, submit(yard))
            kills = []
            for seed in seeds:
                kill = kill_once(stack, yard, seed=seed, expected=expected)
                say(json.dumps(asdict(kill)))
                kills.append(kill)
        database = Database(settings_of(stack.environ, stack.state_dir).resolved_database_url)
        found = invariants.violations(database)
        database.dispose()
    return {
        "violations": found,
        "uninterrupted_sha256": expected,
        "equal": sum(kill.is_equal for kill in kills),
        "of": len(kills),
        "lease_seconds": LEASE_SECONDS,
        "child_gone_seconds_max": max(kill.child_gone_seconds for kill in kills),
        "reclaimed_seconds_median": statistics.median(kill.reclaimed_seconds for kill in kills),
        "reclaimed_seconds_max": max(kill.reclaimed_seconds for kill in kills),
        "redone_steps_max": max(kill.redone_steps for kill in kills),
        "interval_steps": INTERVAL,
        "redone_beyond_interval": sum(kill.redone_steps > INTERVAL for kill in kills),
        "kills": [asdict(kill) for kill in kills],
    }


def holds(report: Mapping[str, Any]) -> bool:
    """Return whether a report's figures are within the bars of the fault matrix."""
    is_quick = report["child_gone_seconds_max"] <= 2 and report["reclaimed_seconds_max"] <= LEASE_SECONDS + 1
    is_little = loses_little(report["redone_steps_max"], interval=report["interval_steps"])
    return is_quick and is_little and report["equal"] == report["of"] and not report.get("violations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trainyard-kill-") as directory:
        report = run(Path(directory), seeds=range(arguments.seeds))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "kill.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{report['equal']} of {report['of']} equal; child gone within {report['child_gone_seconds_max']} s")
    sys.exit(0 if holds(report) else 1)


if __name__ == "__main__":
    main()
