"""What a worker asks of a child, as one JSON file, and where the two meet inside an attempt's directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLAN_NAME = "plan.json"
LOG_NAME = "attempt.log"
PROCESS_NAME = "process.json"
SPOOL_NAME = "spool"
RESUME_NAME = "resume"
SOURCE_NAME = "source"


def write_plan(attempt_dir: Path, plan: Mapping[str, Any]) -> None:
    (attempt_dir / PLAN_NAME).write_text(json.dumps(plan))


def read_plan(path: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(path.read_text())
    return plan


def log_tail(attempt_dir: Path, *, limit_bytes: int = 64 * 1024) -> str:
    """Return the end of what the child wrote to its standard output and error."""
    try:
        with (attempt_dir / LOG_NAME).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - limit_bytes))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    # After a crash Python lists every compiled module in one long line, which would push the stack out of sight.
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("Extension modules:"))
