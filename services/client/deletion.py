"""Deleting several things, one call each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from services.client.errors import ApiError

Item = TypeVar("Item")


def delete_each(items: Sequence[Item], delete: Callable[[Item], None]) -> tuple[list[Item], ApiError | None]:
    """Delete one after another; returns what went, and what the first that did not was refused for."""
    for count, item in enumerate(items):
        try:
            delete(item)
        except ApiError as err:
            return list(items[:count]), err
    return list(items), None
