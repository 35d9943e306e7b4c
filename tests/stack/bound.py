"""Commands that are told to end when the process that starts them dies."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def bound(
    command: Sequence[str], how: signal.Signals = signal.SIGTERM, *, identity: tuple[int, int] | None = None
) -> list[str]:
    """Return a command that becomes the given one, with its process number; by a user and group, if they are given.

    Not in the fork: there, gRPC's handlers for forks run first, and now and then one ends the process.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    change = [] if identity is None else [f"--reuid={identity[0]}", f"--regid={identity[1]}", "--clear-groups"]
    return ["setpriv", *change, f"--pdeathsig={how.name}", "--", *command]
