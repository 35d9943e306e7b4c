"""Everything at once: random faults on a platform that works, then the invariants. Also the nightly run."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from services.broker.app import make_app
from services.broker.sender import RUN_ATTEMPT, Sender
from services.client.errors import ApiError
from services.core.errors import BrokerUnavailable, DatabaseUnavailable
from services.core.states import TERMINAL, JobState
from services.up.probe import grpc_serves
from tests.chaos.ground import Ground, ground, until
from tests.chaos.row import Registry, Result, Stage
from tests.simulation.plan import plan_of
from tests.simulation.run import simulate

REGISTRY = Registry()
WORKERS = ("a", "b", "c")
MOST_LIVE = 8
"""Jobs at a time: enough that every fault meets some."""
FAULTS = ("kill", "segv", "exit", "raise", "nan", "disk", "image")


class Mix:
    """A run of random actions by one seed."""

    def __init__(self, here: Ground, seed: int) -> None:
        self.here = here
        self.rng = random.Random(f"mix:{seed}")
        self.done: Counter[str] = Counter()
        self.job_ids: list[str] = []
        self.down: dict[str, float] = {}
        self._sender = Sender(make_app(here.settings))

    def act(self) -> None:
        """Do one random thing, and bring back what was down long enough."""
        self._bring_back()
        actions: list[tuple[Callable[[], object], int]] = [
            (self._submit, 10),
            (self._cancel, 3),
            (self._ring, 4),
            (self._kill_worker, 3),
            (self._drain_worker, 2),
            (self._freeze_worker, 2),
            (self._kill_trainer, 4),
            (self._kill_warm_parent, 1),
            (self._kill_controller, 2),
            (self._kill_api, 1),
        ]
        if self.here.redis is not None:
            actions += [(self._stop_redis, 2), (self._flush_redis, 1)]
        if self.here.postgres is not None:
            actions.append((self._restart_postgres, 1))
        act = self.rng.choices([one for one, _ in actions], [weight for _, weight in actions])[0]
        try:
            act()
        except (ApiError, BrokerUnavailable, DatabaseUnavailable, StopIteration, IndexError):
            # What is down does not answer; that is no part of this action's promise.
            self.done["refused"] += 1
        else:
            self.done[act.__name__.lstrip("_")] += 1
        time.sleep(self.rng.random() * 0.2)

    def close(self) -> None:
        for name in list(self.down):
            self.down[name] = 0.0
        self._bring_back()
        self._sender.close()

    def _bring_back(self) -> None:
        for name, when in list(self.down.items()):
            if time.monotonic() < when:
                continue
            del self.down[name]
            if name == "redis":
                assert self.here.redis is not None
                self.here.redis.process.start()
            elif name == "api":
                self.here.stack.start("api", "services.api")
                until(grpc_serves(self.here.stack.address), what="the API server", show=self.here.log_tail)
            elif name == "controller":
                self.here.stack.start("controller", "services.controller")
            else:
                self.here.start_worker(name)

    def _live(self) -> list[str]:
        states = self.here.states(self.job_ids)
        return [job_id for job_id, state in states.items() if state not in TERMINAL]

    def _submit(self) -> None:
        if len(self._live()) >= MOST_LIVE:
            return
        steps = self.rng.choice([2, 10, 40])
        faults = (
            {"how": self.rng.choice(FAULTS), "at_step": self.rng.randrange(steps)} if self.rng.random() < 0.4 else {}
        )
        self.job_ids.append(self.here.submit(steps=steps, every=5, pace_ms=10, faults=faults))

    def _cancel(self) -> None:
        self.here.cancel(self.rng.choice(self.job_ids))

    def _ring(self) -> None:
        self._sender.send(RUN_ATTEMPT, "train.cpu", self.rng.choice(self.job_ids))

    def _worker(self) -> str:
        return self.rng.choice([name for name in WORKERS if name not in self.down])

    def _kill_worker(self) -> None:
        name = self._worker()
        self.here.kill(name)
        self.down[name] = time.monotonic() + self.rng.random() * 3

    def _drain_worker(self) -> None:
        name = self._worker()
        self.here.stack.processes[name].send_signal(signal.SIGTERM)
        self.here.stack.processes[name].wait(60)
        self.down[name] = time.monotonic() + self.rng.random()

    def _freeze_worker(self) -> None:
        with self.here.frozen(self._worker(), with_children=self.rng.random() < 0.5):
            time.sleep(self.rng.random() * 4)

    def _kill_trainer(self) -> None:
        job_id = self.rng.choice([one for one in self._live() if self.here.job(one).state is JobState.RUNNING])
        self.here.child_of(job_id).send_signal(self.rng.choice([signal.SIGKILL, signal.SIGSEGV]))

    def _kill_warm_parent(self) -> None:
        family = self.here.family(self._worker())
        next(one for one in family if "workers.warm" in " ".join(one.cmdline())).kill()

    def _kill_controller(self) -> None:
        if "controller" not in self.down:
            self.here.kill("controller")
            self.down["controller"] = time.monotonic() + self.rng.random()

    def _kill_api(self) -> None:
        if "api" not in self.down:
            self.here.kill("api")
            self.down["api"] = time.monotonic() + self.rng.random()

    def _stop_redis(self) -> None:
        assert self.here.redis is not None
        if "redis" not in self.down:
            self.here.redis.process.stop(signal.SIGKILL)
            self.down["redis"] = time.monotonic() + self.rng.random() * 4

    def _flush_redis(self) -> None:
        assert self.here.redis is not None
        import redis

        if "redis" not in self.down:
            with redis.Redis(port=self.here.redis.port) as admin:
                admin.flushall()

    def _restart_postgres(self) -> None:
        assert self.here.postgres is not None
        self.here.postgres.stop(signal.SIGQUIT)
        time.sleep(self.rng.random() * 3)
        self.here.postgres.start()


PROFILES = (
    {"database": "sqlite", "broker": "files"},
    {"database": "postgres", "broker": "redis"},
)


def run_mix(stage: Stage, seed: int, *, actions: int | None = None, seconds: float | None = None) -> Counter[str]:
    """Do random things for a number of actions or seconds, let all jobs end, and check the invariants into the stage."""
    profile = PROFILES[seed % len(PROFILES)]
    with ground(stage, workers=WORKERS, **profile) as here:
        mix = Mix(here, seed)
        end = None if seconds is None else time.monotonic() + seconds
        while sum(mix.done.values()) < (actions or 10**9) and (end is None or time.monotonic() < end):
            mix.act()
        mix.close()
        here.wait_for_workers(*WORKERS)
        here.until_over(mix.job_ids, seconds=240)
        mix.done["jobs"] = len(mix.job_ids)
        mix.done["jobs_succeeded"] = sum(state is JobState.SUCCEEDED for state in here.states(mix.job_ids).values())
    return mix.done


@REGISTRY.row(
    35,
    "a random mix of all that",
    "at least 500 actions over 40 seeds in virtual time, and 50 on real processes by each of two seeds: 0 violations",
    needs=("redis", "postgres"),
)
def random_mix(stage: Stage) -> Result:
    """Real processes take their time; `make chaos-nightly` gives them half an hour."""
    plans = [plan_of(seed) for seed in range(3 if stage.is_short else 40)]
    simulated = [simulate(plan) for plan in plans]
    for outcome in simulated:
        stage.violations += outcome.violations
    seeds = range(stage.count(2, short=1))
    each = 12 if stage.is_short else 50
    total: Counter[str] = Counter()
    for seed in seeds:
        done = run_mix(stage, seed, actions=each)
        stage.say(f"seed {seed}: {dict(done)}")
        total += done
    actions = sum(len(outcome.trace) for outcome in simulated)
    real = sum(count for name, count in total.items() if not name.startswith("jobs"))
    value = {
        "simulated_seeds": len(plans),
        "simulated_actions": actions,
        "actions": real,
        "violations": len(stage.violations),
        **dict(sorted(total.items())),
    }
    return Result(value, not stage.violations and (stage.is_short or (actions >= 500 and real >= 100)), seeds)
