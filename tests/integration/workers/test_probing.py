"""A stop while a trainer times its first steps: nothing is worth saving then, so nobody waits for a step to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.states import AttemptState, JobState
from services.db import jobs
from tests.builders.fault_config import NAME
from tests.builders.fault_recipe import pattern_config
from tests.chaos import patches
from tests.integration.workers.yard import Yard, open_yard, until
from tests.stack.platform import seconds_until_gone

STEP_SECONDS = 600
"""A step that outlasts the test, and every grace."""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, scenes_dir: Path) -> Iterator[Yard]:
    with open_yard(tmp_path_factory.mktemp("yard"), scenes_dir, term_grace="60", stall_floor="300") as yard:
        yard.start_worker(**patches.environment())
        yield yard


def start_probing(yard: Yard, *, processes: int) -> str:
    config = pattern_config(
        runtime={"precision": "auto", "channels_last": "auto"},
        limits={"max_steps": 10_000},
        pace_ms=1000 * STEP_SECONDS,
    )
    spec = {"recipe": NAME, "config": config, "resources": {"class": "cpu", "processes": processes}}
    job_id = yard.submit(recipe=NAME, spec=spec).id

    def phases() -> list[str]:
        return [event.payload["phase"] for event in yard.events(job_id) if event.kind == "phase"]

    until(lambda: phases()[-1:] == ["probing"], what="the probe", show=yard.log_text)
    return job_id


@pytest.mark.parametrize("processes", [1, 2])
def test_a_cancelled_probe_ends_long_before_its_step(yard: Yard, processes: int) -> None:
    job_id = start_probing(yard, processes=processes)
    child = yard.child(job_id)
    family = [child, *child.children(recursive=True)]

    yard.cancel(job_id)

    assert seconds_until_gone(family, limit_seconds=20) < 20
    yard.until_state(job_id, JobState.CANCELLED)
    assert len(family) >= processes


def test_a_paused_probe_is_begun_again_when_its_job_goes_on(yard: Yard) -> None:
    job_id = start_probing(yard, processes=1)

    with yard.database.write() as session:
        jobs.pause(session, "default", job_id, "test")

    yard.until_state(job_id, JobState.PAUSED)
    assert [attempt.state for attempt in yard.attempts(job_id)] == [AttemptState.REQUEUED]
    # A checkpoint of before the first step would fix how to compute, which nobody has found out.
    assert yard.checkpoints(job_id) == []
    assert yard.job(job_id).failure_reason is None
