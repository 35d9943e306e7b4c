"""Transactions side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable


def held_up(action: Callable[[], None]) -> threading.Thread:
    """Start what the caller's open transaction must hold up, and return its thread, to be joined after the commit."""
    thread = threading.Thread(target=action)
    thread.start()
    # Long enough for the other transaction to come to the lock; it must not get past it.
    thread.join(0.3)
    assert thread.is_alive()
    return thread
