from __future__ import annotations

import itertools

import pytest

from services.core.states import TERMINAL, JobEvent, JobState, next_state


@pytest.mark.parametrize(
    ("state", "event", "expected"),
    [
        pytest.param(JobState.QUEUED, JobEvent.CANCEL, JobState.CANCELLED, id="nothing runs, so cancel is at once"),
        pytest.param(JobState.RUNNING, JobEvent.CANCEL, JobState.CANCELLING, id="cancel is a request, not a fact"),
        pytest.param(JobState.CANCELLING, JobEvent.SUCCEED, JobState.SUCCEEDED, id="work that ended first counts"),
        pytest.param(JobState.RUNNING, JobEvent.STOP, None, id="nobody asked for a stop"),
        pytest.param(JobState.CANCELLING, JobEvent.REQUEUE, None, id="a cancelled job never runs again"),
    ],
)
def test_moves(state: JobState, event: JobEvent, expected: JobState | None) -> None:
    assert next_state(state, event) == expected


def test_terminal_states_have_no_exits() -> None:
    exits = [next_state(state, event) for state, event in itertools.product(TERMINAL, JobEvent)]

    assert set(exits) == {None}


def test_every_state_can_be_reached_and_left() -> None:
    reached = {next_state(state, event) for state, event in itertools.product(JobState, JobEvent)} - {None}
    left = {s for s, e in itertools.product(JobState, JobEvent) if next_state(s, e) is not None}

    assert reached == set(JobState)
    assert left == set(JobState) - TERMINAL
