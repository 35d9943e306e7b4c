"""The queues of tasks, by name: what a worker may consume and a job may wait in."""

from __future__ import annotations

import re

_KNOWN = re.compile(r"train\.cpu|train\.gpu(\.x([2-9]|[1-9][0-9]))?|serve\.build")
_NAMED = "train.cpu, train.gpu, train.gpu.xN (N GPUs a job, from 2) and serve.build"


def names_of(text: str) -> list[str]:
    """Return the names in a list by comma."""
    return [name.strip() for name in text.split(",") if name.strip()]


def check_names(text: str) -> str:
    """Return a list by comma as it is.

    Raises:
        ValueError: it is empty, or names a queue that no job ever waits in.
    """
    found = names_of(text)
    unknown = [name for name in found if not _KNOWN.fullmatch(name)]
    if not found:
        raise ValueError(f"names no queue; there are {_NAMED}")
    if unknown:
        raise ValueError(f"there is no queue {unknown[0]!r}, only {_NAMED}")
    return text
