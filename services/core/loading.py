"""Starting without garbage collections: what modules leave behind as they load is no garbage, only much to walk."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Collect nothing inside the block, and never again visit what it loaded.

    Saves a sixth of a start. What is there now stays: a collection that walked all of it would hold up every answer
    for tens of milliseconds, and in a parent of forked processes write to every page they share.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Without a collection before: it would take as long as it ever saves for a few hundred objects.
        gc.freeze()
        if was_enabled:
            gc.enable()
