from __future__ import annotations

from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[3] / "deploy"


@pytest.fixture(scope="session")
def deploy() -> Path:
    return DEPLOY
