"""The forms a served network comes in, and how each is loaded into one callable.

A compiled form computes one instance at a time: a package for batches of two or eight took 13 to 24 % less time an
instance (ResNet-18, bf16 with AMX, one thread), but each is a second build of a quarter of a minute and holds the
weights again, and a package for any batch size ran half slower on single instances.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from workers.families.base import Network

_Outputs = Tensor | tuple[Tensor, ...]
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
"""By the names that archives keep."""


class Form(enum.StrEnum):
    """How the network of an archive is stored, in the usual order of speed."""

    AOTI_INT8 = "aoti_int8"
    AOTI_BF16 = "aoti_bf16"
    AOTI_WINOGRAD = "aoti_winograd"
    """In fp32, convolutions of 3 x 3 by minimal filtering."""
    AOTI_FP32 = "aoti_fp32"
    EXPORT = "export"
    EAGER = "eager"

    @property
    def is_native(self) -> bool:
        """True for machine code, which runs only where the instructions it was built for exist."""
        return self not in (Form.EXPORT, Form.EAGER)

    @property
    def is_rounded(self) -> bool:
        """True for a form that computes in less than the fp32 its weights were stored in."""
        return self in (Form.AOTI_INT8, Form.AOTI_BF16)


class LowPrecision(nn.Module):
    """A network computed in bf16 behind an fp32 interface."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.to(torch.bfloat16)

    def forward(self, x: Tensor) -> _Outputs:
        outputs = self.module(x.to(torch.bfloat16))
        return outputs.float() if isinstance(outputs, Tensor) else tuple(output.float() for output in outputs)


def memory_format_of(module: nn.Module, input_shape: tuple[int, ...]) -> torch.memory_format:
    """Return channels_last for convolutions over images, where it always won, else contiguous."""
    has_convolution = any(isinstance(part, nn.Conv2d | nn.ConvTranspose2d) for part in module.modules())
    return torch.channels_last if has_convolution and len(input_shape) == 3 else torch.contiguous_format


def prepare(module: nn.Module, *, memory_format: torch.memory_format, device: torch.device) -> nn.Module:
    """Put a network where and how it will compute; changes it in place."""
    module = module.eval().requires_grad_(False).to(device)
    return module.to(memory_format=memory_format)


def load_eager(module: nn.Module, *, memory_format: torch.memory_format, device: torch.device) -> Network:
    prepared = prepare(module, memory_format=memory_format, device=device)
    return _network(prepared, memory_format=memory_format, device=device, is_one_by_one=False)


def load_stored(form: Form, path: Path, *, memory_format: torch.memory_format, device: torch.device) -> Network:
    """Load a form that lives in a file; `form` is not eager."""
    call = torch.export.load(path).module() if form is Form.EXPORT else _load_package(path, device)
    return _network(call, memory_format=memory_format, device=device, is_one_by_one=True)


def _load_package(path: Path, device: torch.device) -> Callable[[Tensor], _Outputs]:
    """Load an AOTInductor package.

    By the loader below `torch._inductor.aoti_load_package`, which would first import the whole compiler:
    2 to 20 seconds of every start of a serving process.
    """
    index = (device.index or 0) if device.type == "cuda" else -1
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, index)
    output_spec = json.loads(loader.get_call_spec()[1])[1]
    is_single = output_spec["type"] is None

    def call(x: Tensor) -> _Outputs:
        outputs: list[Tensor] = loader.run([x])
        return outputs[0] if is_single else tuple(outputs)

    return call


def _network(
    call: Callable[[Tensor], _Outputs], *, memory_format: torch.memory_format, device: torch.device, is_one_by_one: bool
) -> Network:
    def network(x: Tensor) -> _Outputs:
        with torch.inference_mode():
            x = x.to(device=device).contiguous(memory_format=memory_format)
            if not is_one_by_one or x.shape[0] == 1:
                return _to_host(call(x))
            # Rows of a batch that is laid out already: no row is copied.
            return _concatenate([_to_host(call(row)) for row in torch.split(x, 1)])

    return network


def _to_host(outputs: _Outputs) -> _Outputs:
    return outputs.cpu() if isinstance(outputs, Tensor) else tuple(output.cpu() for output in outputs)


def _concatenate(parts: list[_Outputs]) -> _Outputs:
    if isinstance(parts[0], Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return tuple(torch.cat(list(columns)) for columns in zip(*parts, strict=True))
