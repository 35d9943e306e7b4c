"""The step of recipes with one network, one loss and one optimizer; a family adds its data and its figures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from workers.engine import ema
from workers.families.base import Placement, Recipe, TrainState
from workers.families.schedule import learning_rate
from workers.families.sections import Optim, SupervisedConfig

SupervisedConfigT = TypeVar("SupervisedConfigT", bound=SupervisedConfig)
BatchT = TypeVar("BatchT")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class SupervisedRecipe(Recipe[SupervisedConfigT, BatchT], Generic[SupervisedConfigT, BatchT]):
    """State of one module and one optimizer, both called `network`, and of its average where the job wants one."""

    @abstractmethod
    def new_network(self) -> nn.Module:
        """Return the network with fresh weights."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: BatchT, placement: Placement) -> dict[str, Tensor]:
        """Return the weighted parts of the loss in fp32; their sum is minimised.

        The forward runs under `placement.autocast()`. Every part is a mean over the batch.
        """

    def build(self, placement: Placement) -> TrainState:
        network = self.new_network()
        network.to(device=placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]
        averages = {"network": ema.average_of(network)} if self.config.runtime.ema else {}
        if placement.compile:
            self.compiled_part(network).compile()
        optimizer = build_optimizer(self.parameter_groups(network), self.config.optim)
        return TrainState(modules={"network": network}, optimizers={"network": optimizer}, ema=averages)

    def compiled_part(self, network: nn.Module) -> nn.Module:
        """Return the module that the losses call, which `runtime.compile` compiles."""
        return network

    def parameter_groups(self, network: nn.Module) -> list[tuple[float, list[nn.Parameter]]]:
        """Return groups of parameters, each with the factor of its learning rate."""
        return [(1.0, [parameter for parameter in network.parameters() if parameter.requires_grad])]

    def train_step(self, state: TrainState, batch: BatchT, placement: Placement) -> dict[str, Tensor]:
        network, optimizer = state.modules["network"], state.optimizers["network"]
        parts = self.losses(network, batch, placement)
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.optim.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.config.optim.max_grad_norm)
        rate = self.rate(state.step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        optimizer.step()
        ema.follow(state, "network", decay=self.config.runtime.ema)
        scalars = {f"train/loss_{name}": part.detach() for name, part in parts.items()} if len(parts) > 1 else {}
        return {"train/loss": loss.detach(), **scalars, "train/lr": torch.full((), rate, device=placement.device)}

    def rate(self, step: int) -> float:
        """Return the learning rate of the update that follows `step` finished ones."""
        return learning_rate(
            step,
            peak=self.config.optim.lr,
            schedule=self.config.schedule,
            max_steps=self.config.limits.max_steps,
        )


def served_network(state: TrainState) -> nn.Module:
    """Return the network that evaluation and serving use: the average, where one is kept."""
    return state.ema.get("network", state.modules["network"])


def build_optimizer(groups: list[tuple[float, list[nn.Parameter]]], config: Optim) -> torch.optim.Optimizer:
    """Build the optimizer; weights decay, biases and norms do not."""
    rows = []
    for factor, parameters in groups:
        decayed = [parameter for parameter in parameters if parameter.ndim > 1]
        plain = [parameter for parameter in parameters if parameter.ndim <= 1]
        rows.append({"params": decayed, "weight_decay": config.weight_decay, "lr_factor": factor})
        rows.append({"params": plain, "weight_decay": 0.0, "lr_factor": factor})
    rows = [row for row in rows if row["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(rows, lr=config.lr, betas=(config.momentum, config.beta2), fused=True)
    return torch.optim.SGD(rows, lr=config.lr, momentum=config.momentum, fused=True)


@contextmanager
def in_eval_mode(module: ModuleT) -> Iterator[ModuleT]:
    """Switch a module to evaluation and put it back."""
    was_training = module.training
    module.eval()
    try:
        yield module
    finally:
        module.train(was_training)


def spread(length: int, count: int) -> list[int]:
    """Return `count` places, fewer if there are fewer, evenly spread over range(length)."""
    return [int(place) for place in np.linspace(0, length - 1, min(count, length)).round()]
