"""What archives are built for: named by those who deploy, read by those who build."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from services.core.settings import Settings

AUTO = "auto"
_NAME = re.compile(r"(cpu|cuda)-t([1-9][0-9]*)(?:-(fp32|int8))?")


@dataclass(frozen=True, slots=True)
class ServingTarget:
    """Device and threads of one serving process, and the precision it may compute in: `auto`, `fp32` or `int8`.

    Its name, such as `cpu-t1` or `cpu-t1-int8`, is the key of an archive beside its model version.
    """

    device: str
    threads: int
    precision: str = AUTO

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.serving_device, settings.serving_threads, settings.serving_precision)

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
