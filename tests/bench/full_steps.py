"""Trains some steps of a plan in the engine and prints its step frames, or why it failed, as one JSON document."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from tests.builders.training import FrameLog, StopAtStep
from workers.engine import run
from workers.engine.frames import FrameKind
from workers.engine.placement import device_name
from workers.failure import diagnose


def main(plan_json: str, steps: str) -> None:
    plan: dict[str, Any] = json.loads(plan_json)
    log, failed = FrameLog(), ""
    try:
        run.train(plan, log.writer, StopAtStep(int(steps)))
    except Exception as err:
        told = diagnose(err)
        failed = f"{told.reason}: {told.message}"
    finally:
        log.close()
    decisions = [frame["precision"] for frame in log.of(FrameKind.PRECISION)]
    document = {
        "failed": failed,
        "precision": decisions[0] if decisions else "",
        "device": plan["device"] if failed else device_name(torch.device(plan["device"])),
        "frames": [dict(frame) for frame in log.of(FrameKind.STEP)],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main(*sys.argv[1:])
