"""Rows about TorchServe under its agent, with callers who never stop asking."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from services.core.states import DeploymentState
from tests.chaos import patches
from tests.chaos.row import Registry, Result, Stage
from tests.integration.serving.yard import BuiltModel, ServingYard, wait_for

REGISTRY = Registry()
_TRIES = 4


Span = tuple[float, float]
"""Begin and end on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Call:
    """One question to a deployment and its answer."""

    begin: float
    end: float
    status: int
    """0: no answer at all."""

    def meets(self, spans: Sequence[Span]) -> bool:
        """Return whether any part of it falls into one of the spans."""
        return any(self.end >= begin and self.begin <= end for begin, end in spans)


@dataclass
class Load:
    """Callers of one deployment, and what they saw."""

    yard: ServingYard
    model: BuiltModel
    calls: list[Call] = field(default_factory=list)
    asked_again: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, *, callers: int = 2) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        import httpx

        while not self._ended.is_set():
            begin = time.monotonic()
            try:
                status = self._predict()
            except httpx.HTTPError:
                status = 0
            self.calls.append(Call(begin, time.monotonic(), status))
            self._ended.wait(0.02)

    def _predict(self) -> int:
        """Ask as the API's documents say: who is refused reads the deployment's token again a moment later."""
        for tries_left in reversed(range(_TRIES)):
            response = self.yard.predict("digits", self.model.inputs[0])
            if response.status_code != 400 or "Token" not in response.text or not tries_left:
                break
            self.asked_again += 1
            self._ended.wait(0.1)
        return response.status_code

    def failures(self, *, outside: Sequence[Span] = ()) -> list[Call]:
        """Return the calls that failed, but for those under way in one of the spans."""
        return [call for call in self.calls if call.status != 200 and not call.meets(outside)]


@REGISTRY.row(
    29,
    "TorchServe SIGKILL under load",
    "what is wanted is served again within 60 s; calls fail only in that window",
    needs=("torchserve",),
)
def torchserve_killed(stage: Stage) -> Result:
    rounds = 1 if stage.is_short else 3
    windows: list[float] = []
    spans: list[Span] = []
    with _serving(stage) as (yard, agent, model):
        load = Load(yard, model)
        with load.running():
            for _ in range(rounds):
                time.sleep(1)
                java = yard.java(agent)
                begin = time.monotonic()
                java.kill()
                wait_for(lambda: yard.get("digits").replicas[0].is_ready, lambda is_ready: not is_ready)
                yard.wait_state("digits", DeploymentState.READY)
                wait_for(lambda: load.calls[-1].status, lambda status: status == 200)
                end = time.monotonic()
                windows.append(end - begin)
                spans.append((begin, end))
            time.sleep(1)
        outside = load.failures(outside=spans)
    value = {
        "back_seconds": [round(one, 1) for one in windows],
        "calls": len(load.calls),
        "failed_outside_the_window": len(outside),
    }
    return Result(value, max(windows) <= 60 and not outside and len(load.calls) > 20)


@REGISTRY.row(
    30,
    "TorchServe's backend worker killed five times, then a version that does not start",
    "the good version never stops: error rate < 0.1 % outside 5 s after each kill; rolled back within 150 s",
    needs=("torchserve",),
)
def backend_killed(stage: Stage) -> Result:
    kills = stage.count(5, short=1)
    spans: list[Span] = []
    with _serving(stage, workers=2) as (yard, agent, model):
        load = Load(yard, model)
        with load.running():
            for _ in range(kills):
                time.sleep(1)
                backend = backends(agent)[0]
                begin = time.monotonic()
                backend.kill()
                spans.append((begin, begin + 5))
                time.sleep(5)
                wait_for(lambda: len(backends(agent)), lambda count: count >= 2)
            broken = yard.publish(seed=2, spoil={"classes": ["only one"]})
            begin = time.monotonic()
            yard.replace("digits", broken, workers=2)
            message = yard.wait_state("digits", DeploymentState.FAILED).message
            rolled_back = time.monotonic() - begin
            time.sleep(2)
        outside = load.failures(outside=spans)
        others = [call for call in load.calls if not call.meets(spans)]
    rate = len(outside) / max(1, len(others))
    value = {
        "kills": kills,
        "calls": len(load.calls),
        "error_rate_outside_windows": rate,
        "failed_inside_windows": len(load.failures()) - len(outside),
        "rolled_back_seconds": round(rolled_back, 1),
        "message": message[:200],
    }
    return Result(value, rate < 0.001 and rolled_back <= 150 and "goes on answering" in message)


@REGISTRY.row(
    31,
    "TorchServe's tokens expire (after half a minute here instead of an hour)",
    "rotated unseen: 0 refusals of clients that read the deployment's token, again where it just ended",
    needs=("torchserve",),
)
def tokens_expire(stage: Stage) -> Result:
    seconds = 20 if stage.is_short else 70
    with _serving(stage, chaos=("services.agent.config:token_minutes=0.5",)) as (yard, _agent, model):
        tokens = set()
        load = Load(yard, model)
        with load.running():
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                tokens.add(yard.replica("digits").token)
                time.sleep(0.2)
        refused = load.failures()
    value = {"seconds": seconds, "calls": len(load.calls), "tokens_seen": len(tokens), "asked_again": load.asked_again}
    value["refused"] = len(refused)
    return Result(value, not refused and len(tokens) >= 2)


def backends(agent: psutil.Process) -> list[psutil.Process]:
    found = []
    for one in agent.children(recursive=True):
        try:
            if "model_service_worker" in " ".join(one.cmdline()):
                found.append(one)
        except psutil.Error:
            continue
    return found


@contextmanager
def _serving(
    stage: Stage, *, workers: int = 1, chaos: tuple[str, ...] = ()
) -> Iterator[tuple[ServingYard, psutil.Process, BuiltModel]]:
    extra = patches.environment(*chaos) if chaos else {}
    yard = ServingYard(stage.directory / "yard", extra)
    model = yard.publish(seed=0)
    yard.deploy("digits", model, workers=workers)
    with yard.agent() as agent:
        yard.wait_state("digits", DeploymentState.READY)
        wait_for(lambda: yard.predict("digits", model.inputs[0]).status_code, lambda status: status == 200)
        yield yard, agent, model
    yard.database.dispose()
