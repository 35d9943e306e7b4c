"""Which checkpoint of a job is meant."""

from __future__ import annotations

import pytest
from trainyard.v1 import job_pb2

from services.client.choice import choose
from services.client.errors import ApiError

JOB = "projects/p/jobs/j"
FOUND = [
    job_pb2.Checkpoint(name=f"{JOB}/checkpoints/{name}", step=step) for name, step in (("c", 9), ("b", 8), ("a", 8))
]


@pytest.mark.parametrize("wanted", ["c", f"{JOB}/checkpoints/c", "9"])
def test_it_is_found_by_id_by_full_name_and_by_step(wanted: str) -> None:
    assert choose(JOB, FOUND, wanted) is FOUND[0]


def test_an_id_that_looks_like_a_step_is_an_id() -> None:
    odd = job_pb2.Checkpoint(name=f"{JOB}/checkpoints/9", step=1)

    assert choose(JOB, [*FOUND, odd], "9") is odd


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        pytest.param(FOUND, "8", "step 8 of job 'j' has several: b, a", id="a step of two"),
        pytest.param(FOUND, "7", "job 'j' has no checkpoint '7'", id="no such step"),
        pytest.param(FOUND, "best", "no checkpoint of job 'j' was evaluated yet", id="none evaluated"),
        pytest.param([], "best", "job 'j' has no checkpoint: it stored none yet, or", id="none at all"),
    ],
)
def test_what_is_not_one_checkpoint_is_said(found: list[job_pb2.Checkpoint], wanted: str, said: str) -> None:
    with pytest.raises(ApiError, match=said):
        choose(JOB, found, wanted)
