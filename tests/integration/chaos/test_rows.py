"""A taste of the fault matrix; `make chaos` runs all of it, each row as often as its bar says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.registry import rows
from tests.chaos.row import Stage

ROWS = rows()
QUICK = (2, 13, 24)
"""Rows of seconds that need no server of others; what they leave out, tests of single parts cover."""


@pytest.mark.parametrize("number", QUICK)
def test_row(number: int, tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage", is_short=True)
    stage.directory.mkdir()

    result = ROWS[number].run(stage)

    assert stage.violations == []
    assert result.passed, result.value


def test_the_matrix_is_whole() -> None:
    assert list(ROWS) == list(range(1, 36))
