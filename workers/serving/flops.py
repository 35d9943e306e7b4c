"""How much a network computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def flops_of(module: nn.Module, example: Tensor) -> int:
    """Return the floating point operations of one forward over `example`."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(example)
    return int(counter.get_total_flops())
