from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.workers.yard import canonical_scenes


@pytest.fixture(scope="session")
def scenes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return canonical_scenes(tmp_path_factory.mktemp("scenes"))
