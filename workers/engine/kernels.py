"""Whether bf16 kernels of this machine compute what fp32 ones do, asked with a step's own tensors.

oneDNN of torch 2.15 with AMX returns nonsense for some convolutions of few channels and wide kernels. Of 1, 2, 3, 4, 8,
16, 32 and 64 channels tried these were wrong: 2, 4 and 8 where channels times kernel width reach 64, and 16 where the
stride is the kernel's width. An FCN's last up-sampling got such input gradients: losses of the first steps were right,
and it never learned. No loss and no gradient of a whole network tells that from rounding, which batch norms of deep
networks blow up; one operation does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from workers.families.base import Placement, Recipe, TrainState

TOLERANCE = 0.1
"""Of the norm. Rounding moved no operation of the recipes' small presets as far; of the wrong ones little was right."""

_ATEN = torch.ops.aten
# The gradient of a bias is left out: where a batch norm follows it is zero, and any rounding of it is large.
_OUTPUTS: dict[Any, Callable[[Any], tuple[Tensor | None, ...]]] = {
    _ATEN.convolution.default: lambda out: (out,),
    _ATEN.convolution_backward.default: lambda out: tuple(out[:2]),
    _ATEN.mm.default: lambda out: (out,),
    _ATEN.addmm.default: lambda out: (out,),
    _ATEN.bmm.default: lambda out: (out,),
}


def wrong_in_step(recipe: Recipe[Any, Any], state: TrainState, batch: Any, placement: Placement) -> list[str]:
    """Do one step, and return what it computed wrongly."""
    with compared() as wrong:
        recipe.train_step(state, batch, placement)
    return sorted(set(wrong))


def is_doubtful(placement: Placement) -> bool:
    """Return whether steps may be compared: on CPUs, in bf16, not compiled.

    On GPUs no kernel was found wrong, and a comparison takes memory that a step may need.
    """
    return placement.autocast_dtype is not None and placement.device.type == "cpu" and not placement.compile


@contextmanager
def compared() -> Iterator[list[str]]:
    """Compute each bf16 convolution and product within once more in fp32; the list names those that differ."""
    mode = _Comparison()
    with mode:
        yield mode.wrong


class _Comparison(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wrong: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        found = func(*args, **given)
        if func in _OUTPUTS and any(isinstance(one, Tensor) and one.dtype is torch.bfloat16 for one in args):
            exact = func(*tree_map_only(Tensor, _widened, args), **tree_map_only(Tensor, _widened, given))
            pairs = zip(_OUTPUTS[func](found), _OUTPUTS[func](exact), strict=True)
            if any(mine is not None and want is not None and _differ(mine, want) for mine, want in pairs):
                shapes = " ".join(str(tuple(one.shape)) for one in args if isinstance(one, Tensor))
                self.wrong.append(f"{func} of {shapes}")
        return found


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor


def _differ(mine: Tensor, want: Tensor) -> bool:
    # Not a number is no agreement, and a loss of its own tells of it where fp32 has the same.
    return not bool((mine.float() - want).norm() <= TOLERANCE * want.norm())
