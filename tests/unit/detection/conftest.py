from __future__ import annotations

from pathlib import Path

import pytest

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from services.datasets.shape_scenes import write_shape_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a canonical dataset of 12 training and 6 held-out scenes, as the importer writes it."""
    folder = write_shape_scenes(tmp_path_factory.mktemp("coco"), seed=3, train_images=12, val_images=6)
    out = tmp_path_factory.mktemp("scenes")
    import_folder(folder, out, source_format=None, limits=ImportLimits())
    return out
