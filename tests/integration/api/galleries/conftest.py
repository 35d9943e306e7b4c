"""A server with one deployed face model and no gallery yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.settings import Settings, Timings
from tests.integration.api.galleries.yard import Yard, open_yard


@pytest.fixture
def yard(template: Path, tmp_path: Path) -> Iterator[Yard]:
    # Nothing moves by itself here but where a test says so.
    timings = Timings(reconcile_interval=3600.0)
    with open_yard(template, Settings(state_dir=tmp_path, api_gallery_identities=6, timings=timings)) as yard:
        yield yard
