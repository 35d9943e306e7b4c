"""The row about cancellations: they always end, once, and leave no trainer behind."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from services.core.states import TERMINAL, JobState
from tests.chaos.ground import Ground, ground, until
from tests.chaos.measure import percentile, terminal_events
from tests.chaos.row import Registry, Result, Stage

REGISTRY = Registry()
LONG = 10**5
POLL_SECONDS = 0.1
"""Six callers that looked every 20 ms took a core from the platform. What they measure is at most this much too long."""


@REGISTRY.row(
    17,
    "cancelled while queued, running, exporting, twice, and racing the end",
    "200/200 with exactly one terminal event; queued within 100 ms; running within 1 s and a step; no trainer left",
)
def cancelled(stage: Stage) -> Result:
    count = stage.count(200, short=8)
    queued: list[float] = []
    running: list[float] = []
    with ground(stage, environ={"TRAINYARD_WORKER_SLOTS": "3"}) as here:

        def one(seed: int) -> None:
            rng = random.Random(f"cancel:{seed}")
            _cancel_one(here, rng, _KINDS[seed % len(_KINDS)], queued, running)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(one, range(count)))
        found = [job.name.rpartition("/")[2] for job in here.yard.list_jobs()]
        here.until_over(found, seconds=180)
        ends = [terminal_events(here.events(job_id)) for job_id in found]
        right = sum(len(end) == 1 for end in ends)
        until(lambda: not _trainers(here), what="every trainer to go", show=here.log_tail)
    value = {
        "one_terminal_event": f"{right}/{len(found)}",
        "ended_as": {kind: sum(end == [kind] for end in ends) for kind in ("cancelled", "succeeded", "failed")},
        "queued_seconds_max": round(max(queued, default=0), 3),
        "running_seconds_p95": round(percentile(running, 0.95), 2),
        "running_seconds_max": round(max(running, default=0), 2),
    }
    passed = right == len(found) == count and max(queued) <= 0.1 and percentile(running, 0.95) <= 1.5
    return Result(value, passed, range(count))


_KINDS = ("queued", "running", "running", "export", "twice", "racing")


def _cancel_one(here: Ground, rng: random.Random, kind: str, queued: list[float], running: list[float]) -> None:
    fields: dict[str, Any] = {"steps": LONG, "pace_ms": 50}
    if kind in ("export", "racing"):
        fields = {"steps": 5, "pace_ms": 5, "golden_ms": 300 if kind == "export" else 0}
    job_id = here.submit(**fields)
    if kind == "queued":
        begin = time.monotonic()
        here.cancel(job_id)
        if here.job(job_id).state is JobState.CANCELLED and not here.attempts(job_id):
            queued.append(time.monotonic() - begin)
        return
    until(
        lambda: here.job(job_id).progress_step >= (1 if kind != "export" else 5),
        what=f"{kind} {job_id}",
        show=here.log_tail,
        pause=POLL_SECONDS,
    )
    time.sleep(rng.random() * 0.1)
    begin = time.monotonic()
    here.cancel(job_id)
    if kind == "twice":
        here.cancel(job_id)
    here.until_state(job_id, *TERMINAL, pause=POLL_SECONDS)
    if kind in ("running", "twice"):
        running.append(time.monotonic() - begin)


def _trainers(here: Ground) -> list[int]:
    return [one.pid for name in "ab" for one in here.family(name) if any(part in one.cwd() for part in ("attempts/",))]
