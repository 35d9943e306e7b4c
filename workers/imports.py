"""Keeps torch's compiler out of processes until somebody compiles or exports.

Optimizers and torchvision import `torch._dynamo`, and with it sympy and half of the compiler, for marks that only the
compiler reads: `disable` on functions and `graph_break` between them. That is a third of what a worker imports before
its first job, and half of what a serving process does. A stand-in answers for these marks; whatever else is asked of
it loads the real package and puts it in its place.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_UTILS = f"{_COMPILER}.utils"
_NEEDS_UTILS = "torchvision.ops.roi_align"
"""Takes one function from the compiler's utilities at its top, which only its deterministic path on an accelerator asks."""


class _Compiler(ModuleType):
    """Stands for `torch._dynamo` until anything but its marks is asked for.

    A function marked before the real package came stays unmarked: torch's optimizers and torchvision's wrappers, none
    of which is inside a network that is compiled.
    """

    def __init__(self) -> None:
        super().__init__(_COMPILER)
        self.disable = _disable
        self.graph_break = _graph_break

    def __getattr__(self, name: str) -> Any:
        # The import system looks at these of any module it finds.
        if name in ("__file__", "__spec__", "__wrapped__", "__warningregistry__"):
            raise AttributeError(name)
        return getattr(load_compiler(), name)


def load_compiler() -> ModuleType:
    """Put the real `torch._dynamo` in the stand-in's place, where it is not yet, and return it."""
    if isinstance(sys.modules.get(_COMPILER), _Compiler):
        del sys.modules[_COMPILER]
        importlib.import_module(_COMPILER)
        # What the process settled before, since nobody told the compiler then.
        config: Any = importlib.import_module("torch._inductor.config")
        config.deterministic = sys.modules["torch"].are_deterministic_algorithms_enabled()
    return importlib.import_module(_COMPILER)


def _disable(fn: Callable[..., Any] | None = None, recursive: bool = True, **_: Any) -> Any:
    return partial(_disable, recursive=recursive) if fn is None else fn


def _graph_break(msg: str = "") -> None:
    """Do nothing: nobody is compiling."""


class _Known(Loader):
    """Gives a module that is already there, as it is."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _WithoutUtils(Loader):
    """Runs a module while a stand-in answers for the compiler's utilities."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if _UTILS in sys.modules:
            self._real.exec_module(module)
            return
        sys.modules[_UTILS] = _utils()
        try:
            self._real.exec_module(module)
        finally:
            del sys.modules[_UTILS]


class _Finder(MetaPathFinder):
    """Finds what needs a stand-in, and leaves every other module to the usual finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.startswith(f"{_COMPILER}.") and (known := sys.modules.get(fullname)) is not None:
            # Asked for through the stand-in: the real package, which came first, has imported it meanwhile.
            return ModuleSpec(fullname, _Known(known), is_package=hasattr(known, "__path__"))
        if fullname != _NEEDS_UTILS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutUtils(spec.loader)
        return spec


def _utils() -> ModuleType:
    module = ModuleType(_UTILS)

    def is_compile_supported(device_type: str) -> bool:
        """Ask the compiler, now that somebody wants to know."""
        supported: bool = importlib.import_module(_UTILS).is_compile_supported(device_type)
        return supported

    module.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    return module


def install() -> None:
    """Put stand-in and finder in place once, unless the compiler is there already."""
    if _COMPILER in sys.modules:
        return
    sys.modules[_COMPILER] = _Compiler()
    sys.meta_path.insert(0, _Finder())
