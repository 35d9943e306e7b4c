"""Marks every test by its folder and keeps unit tests off the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# One thread a process: two busy OpenMP pools on the same cores slow each other down many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).parent
FOLDERS = ("unit", "contract", "integration", "e2e", "chaos")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
        if folder == "unit":
            item.add_marker(pytest.mark.disable_socket)
