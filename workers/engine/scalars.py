"""The figures of training steps: summed on the device, read once a log step, with no sync in between.

A step whose scalars are not finite shows in the sums, which then stay so. The sums of an unfinished window are
part of a checkpoint, so the loss curve of a resumed job is that of one never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from workers.engine.errors import NonFiniteLoss

Names = tuple[str, ...]


class ScalarWindow:
    """Means of scalars since the last reset; names may differ from step to step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[Names, Tensor] = {}
        self._counts: dict[Names, int] = {}
        self._watch = _FiniteWatch(device)

    def add(self, scalars: Mapping[str, Tensor], *, step: int) -> None:
        """Add one step's scalars.

        Raises:
            NonFiniteLoss: a scalar of this step, or on a GPU of one a little earlier, is not finite.
        """
        if not scalars:
            return
        names = tuple(scalars)
        values = torch.stack([value.detach().to(self._device, torch.float32) for value in scalars.values()])
        if names not in self._sums:
            self._sums[names] = torch.zeros(len(names), dtype=torch.float64, device=self._device)
            self._counts[names] = 0
        self._sums[names] += values
        self._counts[names] += 1
        if self._watch.saw_non_finite(self._sums[names]):
            self.read(step=step)

    def read(self, *, step: int) -> dict[str, float]:
        """Return the mean of every scalar since the last reset; waits for the device.

        Raises:
            NonFiniteLoss: one of them is not finite.
        """
        totals: dict[str, tuple[float, int]] = {}
        for names, sums in self._host().items():
            for name, value in zip(names, sums, strict=True):
                total, count = totals.get(name, (0.0, 0))
                totals[name] = (total + value, count + self._counts[names])
        for name, (total, _) in totals.items():
            if not math.isfinite(total):
                raise NonFiniteLoss(f"{name} is not a finite number at step {step}: lower the learning rate", step=step)
        return {name: total / count for name, (total, count) in totals.items() if count}

    def reset(self) -> None:
        for names, sums in self._sums.items():
            sums.zero_()
            self._counts[names] = 0

    def to_json(self) -> list[dict[str, Any]]:
        """Return the unfinished window; waits for the device."""
        return [
            {"names": list(names), "sums": sums, "count": self._counts[names]} for names, sums in self._host().items()
        ]

    def restore(self, document: list[dict[str, Any]]) -> None:
        """Go on with the window that `to_json` returned."""
        for group in document:
            names = tuple(group["names"])
            self._sums[names] = torch.tensor(group["sums"], dtype=torch.float64, device=self._device)
            self._counts[names] = int(group["count"])

    def _host(self) -> dict[Names, list[float]]:
        if not self._sums:
            return {}
        flat = torch.cat(list(self._sums.values())).tolist()
        parts: dict[Names, list[float]] = {}
        start = 0
        for names in self._sums:
            parts[names] = flat[start : start + len(names)]
            start += len(names)
        return parts


class _FiniteWatch:
    """Looks at sums without waiting for the device: on a GPU the answer comes a step or so later."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._host = torch.zeros((), dtype=torch.float64, pin_memory=self._is_cuda)
        self._arrival: torch.cuda.Event | None = None

    def saw_non_finite(self, sums: Tensor) -> bool:
        if not self._is_cuda:
            return not math.isfinite(sums.sum())
        if self._arrival is not None and not self._arrival.query():  # type: ignore[no-untyped-call]
            return False
        is_bad = self._arrival is not None and not math.isfinite(self._host.item())
        self._host.copy_(sums.sum(), non_blocking=True)
        self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrival.record()
        return is_bad


class History:
    """Curves thinned to a bounded number of points, kept in checkpoints so that they span all attempts."""

    CAPACITY = 200

    def __init__(self, curves: Mapping[str, list[list[float]]] | None = None) -> None:
        self.curves: dict[str, list[list[float]]] = {name: list(points) for name, points in (curves or {}).items()}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                points = self.curves.setdefault(name, [])
                points.append([step, value])
                if len(points) > self.CAPACITY:
                    del points[1:-1:2]
