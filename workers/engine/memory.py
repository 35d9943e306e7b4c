"""What a training costs in memory: estimated from its parts, and measured."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.optim import Optimizer

from workers.families.base import TrainState


def static_estimate_bytes(state: TrainState) -> int:
    """Return bytes of weights, gradients, optimizer state, averages and buffers; activations come on top.

    Before its first update an optimizer's state is foretold from its class and settings.
    """
    modules = state.modules.values()
    parameters = {id(p): p for module in modules for p in module.parameters()}.values()
    buffers = {id(b): b for module in modules for b in module.buffers()}.values()
    averages = [t for module in state.ema.values() for t in (*module.parameters(), *module.buffers())]
    gradients = [parameter for parameter in parameters if parameter.requires_grad]
    optimizers = sum(_optimizer_bytes(optimizer) for optimizer in state.optimizers.values())
    tensors = (*parameters, *gradients, *buffers, *averages, *state.tensors.values())
    return _sum_bytes(tensors) + optimizers


def measure(device: torch.device, static_bytes: int) -> dict[str, int]:
    """Return the figures of a step frame; on the CPU the process's resident memory stands for allocations."""
    rss_bytes = int(psutil.Process().memory_info().rss)
    if device.type == "cuda":
        allocated, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    else:
        allocated, peak = rss_bytes, max(rss_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {
        "alloc_bytes": allocated,
        "peak_bytes": peak,
        "static_estimate_bytes": static_bytes,
        "rss_bytes": rss_bytes,
    }


def _optimizer_bytes(optimizer: Optimizer) -> int:
    if optimizer.state:
        values = (value for state in optimizer.state.values() for value in state.values())
        # step counts are a few bytes each, left out so that the figure is the same before and after
        return _sum_bytes(value for value in values if isinstance(value, Tensor) and value.dim() > 0)
    return sum(_moments(optimizer, group) * _sum_bytes(group["params"]) for group in optimizer.param_groups)


def _moments(optimizer: Optimizer, group: dict[str, Any]) -> int:
    match type(optimizer).__name__:
        case "Adam" | "AdamW" | "NAdam" | "RAdam" | "Adamax":
            return 2 + bool(group.get("amsgrad"))
        case "SGD":
            return int(bool(group["momentum"]))
        case "RMSprop":
            return 1 + bool(group["centered"]) + bool(group["momentum"])
        case "Adagrad":
            return 1
        case _:
            return 0


def _sum_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
