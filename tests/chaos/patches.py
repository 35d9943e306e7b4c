"""What chaos runs change inside the platform's processes, by name: `module:what`. Applied as the module is loaded.

Only what cannot be done from outside: a recipe with faults, a machine with GPUs that this one has not, a token of
a minute. Everything else is signals, limits and broken connections.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

INJECT = Path(__file__).parent / "inject"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Patch:
    """One change to one module."""

    apply: Callable[[ModuleType, str], None]


def environment(*items: str) -> dict[str, str]:
    """Return what a process needs to have these patches, each `name` or `name=argument`; always the fault recipe."""
    return {
        "PYTHON_CHAOS": ";".join(["workers.families.catalog:faults", *items]),
        "PYTHONPATH": f"{INJECT}:{ROOT}",
    }


def _add_recipe(module: ModuleType, _: str) -> None:
    from tests.builders import fault_config

    module.CATALOG.update(fault_config.CATALOG)


def _fake_gpus(module: ModuleType, argument: str) -> None:
    """Make NVML tell of the GPUs in a JSON file, which a run may change: a list of {uuid, name, memory, is_lost}."""

    def gpus() -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = json.loads(Path(argument).read_text())
        return found

    def checked(gpu: Mapping[str, Any]) -> Mapping[str, Any]:
        if gpu["is_lost"]:
            raise module.NVMLError(module.NVML_ERROR_GPU_IS_LOST)
        return gpu

    def by_uuid(uuid: str) -> int:
        return next(index for index, gpu in enumerate(gpus()) if gpu["uuid"] == uuid)

    def memory(index: int) -> SimpleNamespace:
        total = checked(gpus()[index])["memory"]
        return SimpleNamespace(total=total, used=0, free=total)

    module.nvmlInit = lambda: None  # type: ignore[attr-defined]
    module.nvmlShutdown = lambda: None  # type: ignore[attr-defined]
    module.nvmlDeviceGetCount = lambda: len(gpus())  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByIndex = lambda index: index  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByUUID = by_uuid  # type: ignore[attr-defined]
    module.nvmlDeviceGetUUID = lambda index: gpus()[index]["uuid"]  # type: ignore[attr-defined]
    module.nvmlDeviceGetName = lambda index: gpus()[index]["name"]  # type: ignore[attr-defined]
    module.nvmlDeviceGetMemoryInfo = memory  # type: ignore[attr-defined]


def _token_minutes(module: ModuleType, argument: str) -> None:
    module.TOKEN_MINUTES = float(argument)  # type: ignore[attr-defined]


def _small_parts(module: ModuleType, argument: str) -> None:
    module._PART_BYTES = int(argument)  # type: ignore[attr-defined]


PATCHES: dict[str, Patch] = {
    "workers.families.catalog:faults": Patch(_add_recipe),
    "pynvml:gpus": Patch(_fake_gpus),
    "services.storage.minio:part_bytes": Patch(_small_parts),
    "services.agent.config:token_minutes": Patch(_token_minutes),
}
