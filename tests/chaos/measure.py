"""Figures that rows take from what happened."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from services.client.sdk import Trainyard
from services.core.states import TERMINAL
from services.db.job_records import Event


def redone_steps(events: Sequence[Event], *, lost_token: int) -> int:
    """Return how many steps that an attempt had told of came again in the next one."""
    last = max((e.payload["step"] for e in events if e.kind == "step" and e.token == lost_token), default=0)
    resumed = next((e.payload["step"] for e in events if e.kind == "step" and e.token > lost_token), last + 1)
    return max(0, int(last) - int(resumed) + 1)


def loses_little(redone: int, *, interval: int) -> bool:
    """Return whether an attempt lost at most one checkpoint interval.

    Checkpoints travel to the store while the training goes on: steps done in that time, which is at most half an
    interval of these short ones, come on top where the kill was quicker than the newest checkpoint.
    """
    return redone <= interval + interval // 2


def added_share(away: Sequence[float], around: Sequence[float]) -> float:
    """Return by which share the median step is longer than in the quiet times around; negative where it is shorter."""
    return median(away) / median(around) - 1


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of them lies; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def call_seconds(yard: Trainyard, count: int, *, pause_seconds: float = 0.0) -> list[float]:
    """Return how long each of `count` calls took, one after the other, each for the newest job."""
    found = []
    for _ in range(count):
        begin = time.monotonic()
        list(zip(range(1), yard.list_jobs(), strict=False))
        found.append(time.monotonic() - begin)
        time.sleep(pause_seconds)
    return found


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def resident_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def terminal_events(events: Sequence[Event]) -> list[str]:
    return [event.kind for event in events if event.kind in {state.value for state in TERMINAL}]


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, default=str) + "\n")
