"""How long training stands still for a checkpoint of a 25M-parameter network with Adam."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import torchvision

from tests.bench.figures import summary
from workers.engine import state as train_state
from workers.engine.checkpoint import Checkpointer, Written
from workers.families.base import TrainState

REPEATS = 20


def adam_state() -> TrainState:
    """Return a ResNet-50 (25.6M parameters) whose optimizer has both moments."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return TrainState(modules={"network": network}, optimizers={"adam": optimizer})


def run(directory: Path) -> dict[str, Any]:
    state = adam_state()
    written: list[Written] = []
    checkpointer = Checkpointer(directory / "spool", written.append)
    (directory / "spool").mkdir()
    checkpointer.reserve(train_state.capture(state, extra={}))
    checkpointer.wait()
    stalls = []
    for _ in range(REPEATS):
        # One update between two checkpoints, as in training: the copied memory is not still in the caches.
        state.optimizers["adam"].step()
        state.step += 1
        begin = time.perf_counter()
        checkpointer.submit(train_state.capture(state, extra={}))
        stalls.append(time.perf_counter() - begin)
        checkpointer.wait()
    checkpointer.close()
    parameters = sum(parameter.numel() for parameter in state.modules["network"].parameters())
    return {
        "checkpoint_stall_seconds": {key: round(value, 4) for key, value in summary(stalls).items()},
        "checkpoint_parameters": parameters,
        "checkpoint_write_seconds_p50": round(summary([one.write_seconds for one in written])["p50"], 3),
    }
