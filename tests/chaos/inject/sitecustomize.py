"""Loaded by every Python process of a chaos run, because its folder leads PYTHONPATH: patches modules as they load.

Which patches, PYTHON_CHAOS says: `name=argument;name=argument`. A process without the variable is left alone.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType


class _Patching(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module where it is, and patches it once it is executed."""

    def __init__(self, wanted: dict[str, list[tuple[str, str]]]) -> None:
        self._wanted = wanted
        self._inner: dict[str, importlib.abc.Loader] = {}
        self._busy: set[str] = set()

    def find_spec(self, fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        if fullname not in self._wanted or fullname in self._busy:
            return None
        self._busy.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            self._inner[fullname] = spec.loader
            spec.loader = self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner[spec.name].create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner[module.__name__].exec_module(module)
        from tests.chaos import patches

        for name, argument in self._wanted[module.__name__]:
            patches.PATCHES[name].apply(module, argument)


def _install(text: str) -> None:
    wanted: dict[str, list[tuple[str, str]]] = {}
    for item in filter(None, text.split(";")):
        name, _, argument = item.partition("=")
        module, _, _ = name.partition(":")
        wanted.setdefault(module, []).append((name, argument))
    sys.meta_path.insert(0, _Patching(wanted))


if os.environ.get("PYTHON_CHAOS"):
    _install(os.environ["PYTHON_CHAOS"])
