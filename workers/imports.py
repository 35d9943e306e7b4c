"""Keeps torch's compiler out of processes that only import torchvision.

`torchvision.ops.roi_align` imports `torch._dynamo` at its top, and with it sympy and half of the compiler, for one
function that only its deterministic path on an accelerator asks. That is half of what a serving process imports.
Optimizers import the compiler anyway, so trainers gain nothing and lose nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_NEEDS_IT = "torchvision.ops.roi_align"
_COMPILER = "torch._dynamo.utils"


class _WithoutCompiler(Loader):
    """Runs a module while a stand-in answers for the compiler."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if _COMPILER in sys.modules:
            self._real.exec_module(module)
            return
        sys.modules[_COMPILER] = _stand_in()
        try:
            self._real.exec_module(module)
        finally:
            del sys.modules[_COMPILER]


class _Finder(MetaPathFinder):
    """Finds one module, and leaves every other to the usual finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _NEEDS_IT:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutCompiler(spec.loader)
        return spec


def _stand_in() -> ModuleType:
    module = ModuleType(_COMPILER)

    def is_compile_supported(device_type: str) -> bool:
        """Ask the compiler, now that somebody wants to know."""
        supported: bool = importlib.import_module(_COMPILER).is_compile_supported(device_type)
        return supported

    module.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    return module


def install() -> None:
    """Put the finder in place once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
