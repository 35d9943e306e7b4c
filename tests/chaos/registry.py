"""Every row of the fault matrix by its number."""

from __future__ import annotations

from importlib import import_module

from tests.chaos.row import Row

MODULES = ("workers", "failures", "services", "objects", "api", "cancelling", "abuse", "data", "serving", "mix")


def rows() -> dict[int, Row]:
    """Return all rows; two of one number are a mistake."""
    found: dict[int, Row] = {}
    for name in MODULES:
        for row in import_module(f"tests.chaos.rows.{name}").REGISTRY.rows:
            assert row.number not in found, f"row {row.number} is there twice"
            found[row.number] = row
    return dict(sorted(found.items()))
