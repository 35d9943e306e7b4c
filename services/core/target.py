"""What archives are built for: named by those who deploy, read by those who build and serve."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

AUTO, FP32, INT8 = "auto", "fp32", "int8"
_NAME = re.compile(rf"(cpu|cuda)-t([1-9][0-9]*)(?:-({FP32}|{INT8}))?")


@dataclass(frozen=True, slots=True)
class ServingTarget:
    """Device and threads of one serving process, and what it may compute in besides fp32.

    Precision is `auto` (bf16), `int8` (bf16 and int8) or `fp32` (nothing). The target's name, such as `cpu-t1` or
    `cpu-t1-int8`, is the key of an archive beside its model version.
    """

    device: str = "cpu"
    threads: int = 1
    precision: str = AUTO

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read the name of a target.

        Raises:
            ValueError: `name` is not one.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is no serving target: cpu-t1 is one, and cpu-t1-int8")
        device, threads, precision = match.groups()
        return cls(device, int(threads), precision or AUTO)

    def __str__(self) -> str:
        name = f"{self.device}-t{self.threads}"
        return name if self.precision == AUTO else f"{name}-{self.precision}"
