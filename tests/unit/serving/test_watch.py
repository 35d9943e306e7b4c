from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from services.agent import metrics
from services.agent.client import Version, Worker
from services.agent.plan import Limits
from services.agent.watch import Watch


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(Limits(retry_failed_seconds=600), clock)


def version(*pids: int, is_default: bool = True) -> Version:
    workers = tuple(Worker(str(9000 + n), pid, is_ready=True) for n, pid in enumerate(pids))
    return Version("v", "sha.mar", len(pids), workers, 0, is_default)


def test_a_worker_with_another_pid_has_been_restarted(watch):
    before = metrics.WORKER_RESTARTS._value.get()

    for pids in ((10, 20), (10, 20), (0, 20), (11, 20), (11, 21)):
        (seen,) = watch.look({"m": [version(*pids)]})["m"]

    assert seen.restarts == 2
    assert metrics.WORKER_RESTARTS._value.get() == before + 2
    assert seen.sha256 == "sha"


def test_restarts_of_long_ago_do_not_count(watch, clock):
    watch.look({"m": [version(10)]})
    watch.look({"m": [version(11)]})

    clock.now += 601

    assert watch.look({"m": [version(11)]})["m"][0].restarts == 0


def test_what_was_proven_is_forgotten_when_it_is_gone(watch):
    watch.look({"m": [version(10)]})
    watch.note_verified("m", "v")
    assert watch.look({"m": [version(10)]})["m"][0].is_verified

    watch.look({})

    assert not watch.look({"m": [version(10)]})["m"][0].is_verified


def test_draining_counts_from_when_it_stopped_being_the_default(watch, clock):
    watch.look({"m": [version(10)]})
    clock.now += 100
    watch.look({"m": [version(10, is_default=False)]})
    clock.now += 3

    assert watch.look({"m": [version(10, is_default=False)]})["m"][0].demoted_seconds == 3


def test_an_archive_given_up_on_gets_another_chance_later(watch, clock):
    watch.note_failed(("m", "sha", 1), "boom")
    assert watch.failures() == {("m", "sha", 1): "boom"}

    clock.now += 601

    assert watch.failures() == {}


def test_the_clock_of_a_version_starts_when_its_own_workers_are_asked_for(watch, clock):
    empty = replace(version(), is_default=False)
    watch.look({"m": [empty]})
    clock.now += 500
    (waiting,) = watch.look({"m": [empty]})["m"]
    loading = Version("v", "sha.mar", 1, (), 0, False)
    (begun,) = watch.look({"m": [loading]})["m"]
    clock.now += 30

    assert (waiting.waiting_seconds, begun.waiting_seconds) == (500, 0)
    assert watch.look({"m": [loading]})["m"][0].waiting_seconds == 30


def test_a_version_that_is_slow_again_rests_longer_and_never_for_good(watch, clock):
    trial, rested = ("m", "sha", 1), []
    for _ in range(8):
        rested.append(watch.note_slow(trial, "slow"))
        assert watch.rests() == {trial: f"slow; it is tried again after {rested[-1]:.0f} seconds"}
        clock.now += rested[-1]
        assert watch.rests() == {}

    assert rested == [15, 30, 60, 120, 240, 480, 600, 600]
    assert watch.failures() == {}


def test_once_it_came_up_its_slowness_is_forgotten(watch):
    watch.look({"m": [version(10)]})
    watch.note_slow(("m", "sha", 1), "slow")
    watch.note_slow(("m", "sha", 1), "slow")

    watch.note_verified("m", "v")

    assert watch.note_slow(("m", "sha", 1), "slow") == 15


def test_a_ready_worker_over_the_limit_is_heavy_and_its_successor_is_given_time(clock):
    held = {10: 100, 20: 900, 30: 900}
    watch = Watch(Limits(worker_bytes=500, start_seconds=120), clock, held.__getitem__)
    starting = Worker("9000", 30, is_ready=False)

    (seen,) = watch.look({"m": [version(10, 20)]})["m"]
    watch.note_recycled("m", "v")
    (after,) = watch.look({"m": [Version("v", "sha.mar", 1, (starting,), 0, True)]})["m"]
    clock.now += 121

    assert (seen.heavy_pid, seen.is_recycling) == (20, False)
    assert (after.heavy_pid, after.is_recycling) == (0, True)
    assert not watch.look({"m": [version(10)]})["m"][0].is_recycling


def test_without_a_limit_nobody_is_measured(clock):
    watch = Watch(Limits(), clock, lambda _pid: pytest.fail("measured"))

    assert watch.look({"m": [version(10)]})["m"][0].heavy_pid == 0
