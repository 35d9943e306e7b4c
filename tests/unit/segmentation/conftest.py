"""A few scenes with masks, and FCNs over them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.segmentation_scenes import write_segmentation_scenes
from workers.families.base import Placement, TrainState
from workers.families.segmentation.config import FcnConfig
from workers.families.segmentation.fcn import Fcn

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)


@pytest.fixture(scope="package")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    (root / "canonical").mkdir()
    folder = write_segmentation_scenes(root / "folder", train=2, val=2)
    import_folder(folder, root / "canonical", source_format=None, limits=ImportLimits())
    return root / "canonical"


def built(scenes: Path, config: FcnConfig) -> tuple[Fcn, TrainState]:
    recipe = Fcn(config, scenes)
    return recipe, recipe.build(CPU)
