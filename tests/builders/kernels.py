"""A machine whose bf16 convolutions have wrong gradients, on any machine."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class WrongGradients(TorchDispatchMode):
    """Within, bf16 convolutions give their weights a fiftieth of their gradients."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution_backward.default and args[0].dtype is torch.bfloat16:
            return (found[0], found[1] / 50, *found[2:])
        return found
