"""Decides where and how a job computes: its config, else its checkpoint, else the cache, else a probe."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from services.core.errors import RequestInvalid, Violation
from workers.engine.processor import has_fast_bf16
from workers.families.base import Placement
from workers.families.config import Runtime

PRECISIONS: Mapping[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Decision:
    """How a job computes, decided once; a resume reuses the decision of its checkpoint."""

    precision: str
    is_channels_last: bool
    source: str
    """config, checkpoint, cache, probe, or `default` where a probe would not pay."""
    candidates: tuple[Mapping[str, Any], ...] = field(default=())
    left_out: tuple[Mapping[str, Any], ...] = field(default=())
    """What a probe did not try, and why not."""

    def placement(self, device: torch.device, *, is_compiled: bool) -> Placement:
        return Placement(
            device=device,
            autocast_dtype=PRECISIONS[self.precision],
            memory_format=torch.channels_last if self.is_channels_last else torch.contiguous_format,
            compile=is_compiled,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, source: str) -> Decision:
        precision = str(document["precision"])
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision}")
        candidates, left_out = (tuple(document.get(name, ())) for name in ("candidates", "left_out"))
        return cls(precision, bool(document["is_channels_last"]), source, candidates, left_out)


def device_of(runtime: Runtime, own: str) -> torch.device:
    """Return the device a job computes on: this attempt's own, which the config may only confirm.

    A GPU becomes the process's current one.

    Raises:
        RequestInvalid: the config asks for a device that this worker does not have.
    """
    device = torch.device(own)
    if runtime.device not in ("auto", device.type):
        raise _wrong_device(f"this worker computes on {own}: ask for 'auto', or for the queue of {runtime.device}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise _wrong_device("this worker was given a GPU, but torch finds none")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def settled(runtime: Runtime) -> Decision | None:
    """Return the decision where the config leaves nothing to find out."""
    if "auto" in (runtime.precision, runtime.channels_last):
        return None
    return Decision(runtime.precision, runtime.channels_last == "on", "config")


def default(runtime: Runtime) -> Decision:
    """Return the plain choice for whatever the config leaves open."""
    precision = "fp32" if runtime.precision == "auto" else runtime.precision
    return Decision(precision, runtime.channels_last == "on", "default")


def choices(runtime: Runtime, device: torch.device, *, has_convolutions: bool) -> list[Decision]:
    """Return what a probe may choose among, the plainest first; never a precision that the processor only emulates.

    A precision that the config names is taken as it is.
    """
    is_emulated = device.type == "cpu" and not has_fast_bf16()
    precisions = list(PRECISIONS) if runtime.precision == "auto" else [runtime.precision]
    left_out: tuple[Mapping[str, Any], ...] = ()
    if runtime.precision == "auto" and is_emulated:
        precisions.remove("bf16")
        left_out = ({"precision": "bf16", "reason": "this processor has no bf16 instructions"},)
    formats = [False, True] if runtime.channels_last == "auto" else [runtime.channels_last == "on"]
    if not has_convolutions and runtime.channels_last == "auto":
        formats = [False]
    return [Decision(precision, is_last, "probe", left_out=left_out) for is_last in formats for precision in precisions]


def device_name(device: torch.device) -> str:
    """Return the model of a device, which a cached decision holds for."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, platform.processor() or platform.machine())} x{os.cpu_count()}"


def _wrong_device(description: str) -> RequestInvalid:
    return RequestInvalid(violations=[Violation("config.runtime.device", description)])
