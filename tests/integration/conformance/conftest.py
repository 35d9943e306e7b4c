from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conformance.small import write_stored
from workers.engine.process import process_settings


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what builds the four-sample dataset of a family, once; nobody may change it."""
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            built[family] = write_stored(family, tmp_path_factory.mktemp(family))
        return built[family]

    return get


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with process_settings(threads=1, deterministic=True):
        yield
