from __future__ import annotations

from dataclasses import replace

import pytest

from services.agent.plan import (
    GiveUp,
    Install,
    Limits,
    MakeDefault,
    Pause,
    Recycle,
    Remove,
    Scale,
    Seen,
    Verify,
    Wanted,
    observe,
    plan,
)

LIMITS = Limits(start_seconds=120, restarts=5, drain_seconds=2, drain_limit_seconds=60)
NEW = Wanted(uid="u1", name="p--d", key="k", sha256="new", size_bytes=1, workers=2, generation=3)
UP = Seen(version="n", sha256="new", min_workers=2, ready_workers=2, is_default=True, is_verified=True)
OLD = Seen(version="o", sha256="old", min_workers=2, ready_workers=2, is_default=False, is_verified=True)
STARTING = replace(UP, is_verified=False, is_default=False, ready_workers=1)
OLD_SERVING = replace(OLD, is_default=True)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        pytest.param([], [Install(NEW)], id="nothing there: also after TorchServe restarted"),
        pytest.param([OLD_SERVING], [Install(NEW)], id="the old one stays while the new one is fetched"),
        pytest.param([replace(UP, min_workers=0, ready_workers=0)], [Scale("p--d", "n", 2)], id="registered empty"),
        pytest.param([replace(UP, min_workers=1)], [Scale("p--d", "n", 2)], id="more workers asked for"),
        pytest.param([replace(UP, min_workers=4)], [Scale("p--d", "n", 2)], id="fewer workers asked for"),
        pytest.param([STARTING], [], id="one of two workers is no reason to move"),
        pytest.param([replace(STARTING, ready_workers=2)], [Verify(NEW, "n")], id="up, but not proven"),
        pytest.param([UP], [], id="all well"),
        pytest.param([replace(UP, is_default=False), OLD_SERVING], [MakeDefault("p--d", "n")], id="proven: takes over"),
        pytest.param(
            [replace(UP, is_default=False, ready_workers=1), OLD_SERVING], [], id="lost a worker before it took over"
        ),
        pytest.param([UP, replace(OLD, demoted_seconds=0.5)], [], id="the old one finishes its requests"),
        pytest.param(
            [UP, replace(OLD, demoted_seconds=5)], [Remove("p--d", "o")], id="the old one goes when it has drained"
        ),
        pytest.param([UP, replace(OLD, demoted_seconds=5, pending=3)], [], id="not while requests wait for it"),
        pytest.param(
            [UP, replace(OLD, demoted_seconds=61, pending=3)], [Remove("p--d", "o")], id="but not for ever either"
        ),
        pytest.param(
            [replace(STARTING, waiting_seconds=121)],
            [GiveUp(NEW, "its workers were not ready after 120 seconds (TRAINYARD_TIMINGS__SERVING_START_LIMIT)")],
            id="too slow",
        ),
        pytest.param(
            [replace(STARTING, waiting_seconds=121, has_come_up=True)],
            [Pause(NEW, "its workers were not ready after 120 seconds (TRAINYARD_TIMINGS__SERVING_START_LIMIT)")],
            id="too slow, though it came up before",
        ),
        pytest.param(
            [replace(STARTING, restarts=5, has_come_up=True)],
            [GiveUp(NEW, "its workers ended 5 times while starting (TRAINYARD_TIMINGS__SERVING_RESTART_LIMIT)")],
            id="crash loop",
        ),
        pytest.param([replace(UP, heavy_pid=7)], [Scale("p--d", "n", 3)], id="too much memory: one more worker first"),
        pytest.param([replace(UP, heavy_pid=7, min_workers=3)], [], id="which is not up yet"),
        pytest.param(
            [replace(UP, heavy_pid=7, min_workers=3, ready_workers=3)],
            [Recycle("p--d", "n", 7)],
            id="then the heavy one goes",
        ),
        pytest.param([replace(UP, heavy_pid=7, is_recycling=True)], [], id="one at a time"),
        pytest.param([replace(UP, min_workers=3, is_recycling=True)], [], id="its successor starts, nobody else goes"),
        pytest.param(
            [replace(UP, min_workers=3, ready_workers=3, is_recycling=True)],
            [Scale("p--d", "n", 2)],
            id="and the number is as wanted again",
        ),
        pytest.param([replace(STARTING, heavy_pid=7)], [], id="an unproven version is judged by its start alone"),
        pytest.param([replace(UP, ready_workers=0, restarts=9)], [], id="TorchServe itself restarts proven versions"),
    ],
)
def test_next_action(versions, expected):
    assert plan([NEW], {"p--d": versions} if versions else {}, set(), LIMITS) == expected


EMPTY = replace(UP, is_verified=False, min_workers=0, ready_workers=0)
MANY = [replace(NEW, name=f"p--{n}", workers=1) for n in range(8)]
LOADING = replace(EMPTY, min_workers=1)
CAME_UP = replace(LOADING, ready_workers=1, is_verified=True)


@pytest.mark.parametrize(
    ("seen", "cores", "expected"),
    [
        pytest.param([EMPTY] * 8, 1, [0], id="one at a time"),
        pytest.param([EMPTY] * 8, 2, [0, 1], id="as many as there are cores"),
        pytest.param([LOADING] + [EMPTY] * 7, 1, [], id="the others wait while it loads"),
        pytest.param([CAME_UP] + [EMPTY] * 7, 1, [1], id="the next one when it is up"),
        pytest.param([CAME_UP, LOADING, *[EMPTY] * 6], 2, [2], id="one is up, one loads"),
        pytest.param(
            [EMPTY, replace(EMPTY, waiting_seconds=9), *[CAME_UP] * 6], 1, [1], id="who was registered first goes first"
        ),
        pytest.param([replace(CAME_UP, ready_workers=0), EMPTY, *[CAME_UP] * 6], 1, [1], id="a fall is no start"),
    ],
)
def test_versions_load_in_turns(seen, cores, expected):
    registered = {one.name: [each] for one, each in zip(MANY, seen, strict=True)}

    actions = plan(MANY, registered, set(), replace(LIMITS, loading_workers=cores))

    assert actions == [Scale(f"p--{n}", "n", 1) for n in expected]


def test_a_version_of_more_workers_than_cores_loads_alone():
    registered = {"p--d": [EMPTY], "p--0": [EMPTY]}

    assert plan([NEW, MANY[0]], registered, set(), LIMITS) == [Scale("p--d", "n", 2)]


def test_who_rests_holds_up_nobody():
    registered = {one.name: [each] for one, each in zip(MANY, [LOADING] + [EMPTY] * 7, strict=True)}

    actions = plan(MANY, registered, {MANY[0].trial}, LIMITS)

    assert actions == [Remove("p--0", "n"), Scale("p--1", "n", 1)]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        pytest.param([], [], id="given up on: not installed again"),
        pytest.param([replace(STARTING, is_default=True)], [Remove("p--d", "n")], id="alone: its workers would loop"),
        pytest.param([OLD_SERVING, STARTING], [Remove("p--d", "n")], id="the old one goes on"),
        pytest.param([OLD_SERVING], [], id="settled on the old one"),
    ],
)
def test_next_action_for_an_archive_given_up_on(versions, expected):
    assert plan([NEW], {"p--d": versions}, {NEW.trial}, LIMITS) == expected


def test_an_archive_that_failed_for_one_deployment_may_work_for_another():
    other = replace(NEW, name="p--e")

    assert plan([other], {}, {NEW.trial}, LIMITS) == [Install(other)]


def test_an_archive_given_up_on_is_tried_again_when_the_deployment_is_asked_for_again():
    again = replace(NEW, generation=4)

    assert plan([again], {}, {NEW.trial}, LIMITS) == [Install(again)]


def test_what_nobody_wants_goes_with_its_default_last():
    assert plan([], {"p--d": [UP, OLD]}, set(), LIMITS) == [Remove("p--d", "o"), Remove("p--d", "n")]


@pytest.mark.parametrize(
    ("versions", "failure", "expected"),
    [
        pytest.param([], None, ("new", False, "the archive is being fetched", False), id="nothing yet"),
        pytest.param(
            [replace(UP, is_verified=False, min_workers=0, ready_workers=0)],
            None,
            ("new", False, "it starts once those before it have started", False),
            id="its turn has not come",
        ),
        pytest.param([UP], None, ("new", True, "", False), id="ready"),
        pytest.param(
            [replace(UP, ready_workers=1)], None, ("new", True, "1 of 2 workers are ready", False), id="one lost"
        ),
        pytest.param(
            [replace(UP, ready_workers=0)],
            None,
            ("new", False, "its workers are starting again", False),
            id="all lost: not ready whatever it was",
        ),
        pytest.param(
            [replace(UP, is_verified=False)], None, ("new", False, "2 of 2 workers are ready", False), id="not proven"
        ),
        pytest.param(
            [OLD_SERVING, STARTING], None, ("old", True, "the next version is starting", False), id="the old one serves"
        ),
        pytest.param([], "boom", ("new", False, "boom", True), id="failed"),
        pytest.param(
            [OLD_SERVING],
            "boom",
            ("new", False, "boom; the version before it goes on answering", True),
            id="failed, but something answers",
        ),
    ],
)
def test_what_is_reported(versions, failure, expected):
    assert tuple(observe(NEW, versions, failure))[:-1] == ("u1", *expected)


def test_a_failure_is_reported_with_the_generation_it_is_of():
    assert observe(NEW, [], "boom").generation == 3
