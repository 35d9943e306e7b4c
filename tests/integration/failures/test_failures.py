"""Every way a trainer can fail, as its owner sees it: a class, one sentence to act on, the last lines, what was retried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from trainyard.v1 import job_pb2

from services.client.cli import main
from services.core.states import FailureReason
from tests.chaos.ground import Ground, ground
from tests.chaos.row import Stage


@dataclass(frozen=True)
class Case:
    """A fault, and what the job's owner must be told."""

    faults: dict[str, Any]
    reason: FailureReason
    words: str
    """Of the sentence; it names what to do."""
    log: str
    """Of the last lines the trainer wrote."""
    attempts: int = 1
    """Those it is worth."""


CASES = {
    "a crash": Case({"how": "segv", "at_step": 2}, FailureReason.CRASH, "SIGSEGV", "Segmentation fault", 2),
    "a bug": Case({"how": "raise", "at_step": 2}, FailureReason.CRASH, "KeyError", "KeyError: 'weights'", 2),
    "no number": Case({"how": "nan", "at_step": 2}, FailureReason.NON_FINITE_LOSS, "lower the learning rate", ""),
    "a bad image": Case(
        {"how": "image", "where": "loader", "at_step": 2},
        FailureReason.INVALID_DATASET,
        "import the dataset again",
        "truncated",
    ),
    "no network": Case(
        {"how": "unbuildable", "where": "build"}, FailureReason.SPEC_INVALID, "change the model's fields", ""
    ),
    "no memory": Case({"how": "exhaust", "at_step": 2}, FailureReason.OUT_OF_MEMORY, "lower data.batch_size", "", 4),
    "too much memory": Case(
        {"how": "memory", "at_step": 2, "memory_mib": 4096},
        FailureReason.HOST_OUT_OF_MEMORY,
        "lower data.batch_size",
        "",
        2,
    ),
    "a full disk": Case({"how": "disk", "at_step": 2}, FailureReason.DISK_FULL, "free space there", "No space left", 5),
    "a lost GPU": Case({"how": "gpu", "at_step": 2}, FailureReason.GPU_LOST, "look at it", "fallen off the bus", 5),
    "a failed export": Case({"how": "raise", "where": "golden"}, FailureReason.CRASH, "KeyError", "KeyError", 2),
}


@dataclass
class Failed:
    """The jobs of all cases, each after its end."""

    here: Ground
    jobs: dict[str, str]


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    stage = Stage(tmp_path_factory.mktemp("failures"))
    environ = {
        "TRAINYARD_WORKER_SLOTS": "3",
        "TRAINYARD_WORKER_MEMORY_LIMIT_BYTES": str(1500 << 20),
        "TRAINYARD_TIMINGS__DISK_FULL_DELAY": "0.1",
        # No lease may run out while three trainers start beside other tests: attempts are counted here.
        "TRAINYARD_TIMINGS__LEASE_TTL": "8",
    }
    with ground(stage, workers=("a",), environ=environ) as here:
        jobs = {name: here.submit(faults={**case.faults, "tokens": []}, max_attempts=2) for name, case in CASES.items()}
        here.until_over(list(jobs.values()))
        yield Failed(here, jobs)
    assert stage.violations == []


@pytest.mark.parametrize("name", CASES)
def test_the_owner_is_told_what_to_do(failed: Failed, name: str) -> None:
    case = CASES[name]

    job = failed.here.yard.get_job(failed.jobs[name])

    assert job.state == job_pb2.JOB_STATE_FAILED
    assert job.failure.reason == job_pb2.FailureReason.Value(f"FAILURE_REASON_{case.reason.name}")
    assert case.words in job.failure.message
    assert "\n" not in job.failure.message
    assert case.log in job.failure.log_tail


@pytest.mark.parametrize("name", CASES)
def test_only_what_may_go_better_is_tried_again_and_each_try_says_why(failed: Failed, name: str) -> None:
    case = CASES[name]

    attempts = failed.here.yard.get_attempts(failed.jobs[name])

    assert len(attempts) == case.attempts
    assert all(each.failure.message for each in attempts)
    requeues = [event.requeued for event in failed.here.yard.watch(failed.jobs[name]) if event.HasField("requeued")]
    assert len(requeues) == case.attempts - 1
    assert all(case.log in each.failure.log_tail for each in requeues)


@pytest.mark.parametrize("name", ["no number", "no network", "no memory", "a bug", "a failed export"])
def test_only_what_nobody_foresaw_shows_where_in_our_code_it_happened(failed: Failed, name: str) -> None:
    is_known = CASES[name].reason is not FailureReason.CRASH

    job = failed.here.yard.get_job(failed.jobs[name])

    assert ("Traceback" in job.failure.log_tail) is not is_known


def test_no_fault_leaves_a_checkpoint_with_weights_that_are_no_numbers(failed: Failed) -> None:
    assert [row.step for row in failed.here.checkpoints(failed.jobs["no number"])] == []


def test_the_command_line_shows_what_was_tried(failed: Failed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAINYARD_SERVER", failed.here.stack.address)
    monkeypatch.setenv("TRAINYARD_STATE_DIR", str(failed.here.stack.state_dir))
    monkeypatch.setenv("TRAINYARD_TOKEN", token_of(failed.here))

    shown = CliRunner().invoke(main, ["jobs", "show", failed.jobs["a crash"]])
    document = CliRunner().invoke(main, ["jobs", "show", failed.jobs["a crash"], "--json"])
    logs = CliRunner().invoke(main, ["jobs", "logs", failed.jobs["a crash"]])

    assert shown.output.count("SIGSEGV") == 3
    assert [each["failure"]["signal"] for each in json.loads(document.output)["attempts"]] == [11, 11]
    assert logs.output.count("Segmentation fault") >= 2


def token_of(here: Ground) -> str:
    return dict(here.yard._caller._metadata)["authorization"].removeprefix("Bearer ")
