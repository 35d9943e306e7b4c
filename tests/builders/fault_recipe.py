"""A small real recipe whose steps take as long as asked, and in which everything that goes wrong with trainers can.

A classifier of noisy patterns without dropout and batch normalisation, so that its update is exactly the mean over
its samples. Faults come with the config, at one step, and by default only in a job's first attempt.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.builders.fault_config import Faults, PatternConfig, PatternModel
from tests.builders.toy_recipe import CLASSES, ToyBatch, ToyHandler, ToySource, draw_images, toy_config
from workers.engine import ema
from workers.families.base import Golden, Instance, Picture, Placement, Recipe, ServingSpec, TrainState


class _FaultySource:
    def __init__(self, config: PatternConfig) -> None:
        self._source = ToySource(config)  # type: ignore[arg-type]  # the fields it reads are there
        self._faults = config.faults
        self.batch_size = self._source.batch_size
        self.steps_per_epoch = self._source.steps_per_epoch

    def batch(self, step: int) -> ToyBatch:
        if self._faults.where == "loader" and step == self._faults.at_step:
            act(self._faults)
        return self._source.batch(step)


class Patterns(Recipe[PatternConfig, ToyBatch]):
    """Trains and serves patterns."""

    metric: ClassVar[str] = "eval/accuracy"
    is_batch_divisible: ClassVar[bool] = True

    def __init__(self, config: PatternConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self.is_batch_divisible = config.model.is_divisible  # type: ignore[misc]  # a recipe that says no, by config

    def train_batches(self) -> _FaultySource:
        return _FaultySource(self.config)

    def to_device(self, batch: ToyBatch, placement: Placement) -> ToyBatch:
        return ToyBatch(batch.images.to(placement.device), batch.labels.to(placement.device))

    def build(self, placement: Placement) -> TrainState:
        if self.config.faults.where == "build":
            act(self.config.faults)
        network = pattern_network(self.config.model).to(placement.device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 9])
        return TrainState(
            {"network": network}, {"all": optimizer}, {"all": schedule}, {"network": ema.average_of(network)}
        )

    def train_step(self, state: TrainState, batch: ToyBatch, placement: Placement) -> dict[str, Tensor]:
        faults, config = self.config.faults, self.config
        if faults.where == "step" and state.step == faults.at_step and faults.how != "nan":
            act(faults)
        if config.model.most_rows and len(batch.images) > config.model.most_rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate room for {len(batch.images)} samples")
        if config.pace_ms:
            time.sleep(config.pace_ms / 1000)
        network, optimizer = state.modules["network"], state.optimizers["all"]
        loss = F.cross_entropy(network(batch.images), batch.labels)
        if faults.how == "nan" and state.step == faults.at_step and is_meant(faults):
            loss = loss * torch.inf
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        state.schedulers["all"].step()
        ema.update(state.ema["network"], network, decay=0.9)
        return {"train/loss": loss.detach()}

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        labels = torch.arange(30) % CLASSES
        images = draw_images(labels, 0.2, torch.Generator().manual_seed(99))
        with torch.inference_mode():
            right = state.modules["network"](images).argmax(1) == labels
        return {"eval/accuracy": float(right.float().mean())}

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        return []

    def serving_module(self, state: TrainState) -> nn.Module:
        return state.modules["network"].eval()

    def serving_spec(self) -> ServingSpec:
        return ServingSpec((1, 8, 8), {"classes": ["across", "down", "checkerboard"]})

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        if self.config.faults.where == "golden":
            act(self.config.faults)
        time.sleep(self.config.golden_ms / 1000)
        from tests.builders.toy_recipe import _png

        images = draw_images(torch.arange(2) % CLASSES, 0.1, torch.Generator().manual_seed(1))
        inputs = tuple(_png(image) for image in images)
        answers = ToyHandler(self.serving_spec()).predict(
            [Instance(body, {}, {}) for body in inputs], self.serving_module(state)
        )
        return Golden(inputs, tuple(answer for answer in answers if isinstance(answer, Mapping)))

    @classmethod
    def load_serving_module(cls, config: PatternConfig, spec: ServingSpec) -> nn.Module:
        return pattern_network(config.model).eval()


class _Network(nn.Sequential):
    def __init__(self, model: PatternModel) -> None:
        super().__init__(
            nn.Conv2d(1, model.width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * model.width, CLASSES),
        )
        self.register_buffer("ballast", torch.zeros(model.ballast_mib * 2**18))


def pattern_network(model: PatternModel) -> nn.Module:
    return _Network(model)


def is_meant(faults: Faults) -> bool:
    """Tell whether this attempt is one the fault belongs to: an attempt's directory is named by job and token."""
    token = Path.cwd().name.rpartition("-")[2]
    return not faults.tokens or int(token if token.isdigit() else 1) in faults.tokens


def act(faults: Faults) -> None:
    """Let it happen."""
    if faults.how and is_meant(faults):
        _ACTS[faults.how](faults)


def _signalled(number: signal.Signals) -> Any:
    def send(_: Faults) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    return send


def _segv(_: Faults) -> None:
    import faulthandler

    faulthandler._sigsegv()  # type: ignore[attr-defined]


def _fill_memory(faults: Faults) -> None:
    held = []
    for _ in range(max(1, faults.memory_mib // 16)):
        held.append(b"\1" * (16 << 20))
        time.sleep(0.02)
    time.sleep(30)


def _raising(err: Exception) -> Any:
    def throw(_: Faults) -> None:
        raise err

    return throw


_ACTS: dict[str, Any] = {
    "kill": _signalled(signal.SIGKILL),
    "bus": _signalled(signal.SIGBUS),
    "segv": _segv,
    "exit": lambda _: os._exit(139),
    "raise": _raising(KeyError("weights")),
    "gpu": _raising(RuntimeError("CUDA error: unspecified launch failure (GPU has fallen off the bus)")),
    "hang": lambda _: time.sleep(3600),
    "memory": _fill_memory,
    "image": _raising(OSError("image file is truncated (12 bytes not processed)")),
    "disk": _raising(OSError(errno.ENOSPC, "No space left on device")),
    "unbuildable": _raising(ValueError("in_channels must be divisible by groups")),
    "exhaust": _raising(torch.OutOfMemoryError("CUDA out of memory")),
    "nan": lambda _: None,
}


def pattern_config(**sections: Any) -> dict[str, Any]:
    """Return a complete config; sections are merged over defaults of a few steps."""
    base = {name: dict(value) for name, value in toy_config().items() if name in ("runtime", "limits")}
    base["limits"] |= {"log_every_steps": 1, "sample_every_steps": 10**6, "evaluate_every_steps": 10**6}
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, Mapping) else section
    return dict(PatternConfig.model_validate(base).model_dump(mode="json"))
