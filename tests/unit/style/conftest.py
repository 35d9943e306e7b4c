"""Four pictures of either domain, and recipes over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.domains import write_two_digits


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("domains")
    (root / "canonical").mkdir()
    folder = write_two_digits(root / "folder", train=4, val=2)
    import_folder(folder, root / "canonical", source_format=None, limits=ImportLimits(), family="domains")
    return root / "canonical"
