"""One real agent and TorchServe on a machine that is slow: who loads when, and who is given up on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from services.agent.client import TorchServeUnavailable, Version
from services.core.states import DeploymentState
from tests.integration.serving.yard import BuiltModel, ServingYard, wait_for

READY, STARTING, FAILED = DeploymentState.READY, DeploymentState.STARTING, DeploymentState.FAILED
NAMES = ("a", "b", "c")
LIMIT = "TRAINYARD_TIMINGS__SERVING_START_LIMIT"


@pytest.fixture
def yard(tmp_path_factory: pytest.TempPathFactory) -> ServingYard:
    return ServingYard(tmp_path_factory.mktemp("yard"))


@pytest.fixture
def model(yard: ServingYard) -> BuiltModel:
    return yard.publish(seed=0)


@contextmanager
def one_core() -> Iterator[None]:
    """Let processes that start meanwhile use one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def test_on_one_core_versions_load_one_after_another(yard, model):
    for name in NAMES:
        yard.deploy(name, model)
    loading: list[int] = []

    def states() -> set[DeploymentState]:
        versions: list[Version] = []
        with suppress(TorchServeUnavailable), yard.client() as client:
            versions = [version for one in client.models().values() for version in one]
        loading.append(sum(v.min_workers > sum(w.is_ready for w in v.workers) for v in versions))
        return {yard.get(name).state for name in NAMES}

    with one_core(), yard.agent():
        wait_for(states, lambda seen: seen == {READY})

    assert max(loading) == 1


def test_what_came_up_before_is_tried_again_however_slow_it_is(yard, model):
    yard.deploy("a", model)
    with yard.agent():
        yard.wait_state("a", READY)
    yard.env[LIMIT] = "0.2"
    seen = set()

    def message() -> str:
        found = yard.get("a")
        seen.add(found.state)
        return found.message

    with yard.agent():
        told = [wait_for(message, re.compile(f"again after {seconds} seconds").search) for seconds in (15, 30)]
    del yard.env[LIMIT]
    with yard.agent():
        yard.wait_state("a", READY)

    assert all(LIMIT in text for text in told)
    assert seen == {STARTING}


def test_a_version_that_never_came_up_is_given_up_on_with_the_setting_and_what_to_type(yard, model):
    yard.env[LIMIT] = "0.2"
    yard.deploy("a", model)

    with yard.agent():
        found = yard.wait_state("a", FAILED)

    assert LIMIT in found.message
    assert "`trainyard deploy MODEL --name a`" in found.message
