"""Why a backend worker ended, read from TorchServe's model log: people get the reason, not 'not ready'."""

from __future__ import annotations

import os
import re
from pathlib import Path

_TAIL_BYTES = 200_000
_REASON_CHARACTERS = 500
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*): (\S.*)$")  # the last line of a traceback


def failure_reason(log_file: Path, *, name: str, version: str) -> str | None:
    """Return the last exception a version's workers printed, or None."""
    marker = f"-{name}_{version}-"
    reason = None
    for line in _tail(log_file):
        head, separator, text = line.partition(" - ")
        if separator and marker in head and (match := _ERROR.match(text)):
            reason = f"{match[1]}: {match[2]}"[:_REASON_CHARACTERS]
    return reason


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
            return stream.read().decode(errors="replace").splitlines()
    except OSError:
        return []
