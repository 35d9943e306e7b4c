"""The control plane: the API server, the controller, the agent and the client. Never imports torch."""

from __future__ import annotations

import sys
from typing import Any, cast


def _import_structlog_alone() -> None:
    """Import structlog without rich, which it would take along wherever it is installed.

    Only the command line draws with rich; a third of a second of every other process's start goes without it.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    modules = cast("dict[str, Any]", sys.modules)
    modules["rich"] = None  # the import system's own way to say: not there
    try:
        import structlog  # noqa: F401
    finally:
        del modules["rich"]


_import_structlog_alone()
