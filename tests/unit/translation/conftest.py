from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from tests.builders.domains import write_two_digits
from tests.builders.pairs import write_outlines
from workers.engine import rng
from workers.families.base import Placement, Recipe, TrainState
from workers.families.catalog import CATALOG
from workers.families.config import RecipeConfig
from workers.families.translation.colorize import Colorize
from workers.families.translation.inpaint import Inpaint
from workers.families.translation.pictures_config import ColorizeConfig, InpaintConfig
from workers.families.translation.srgan import Srgan
from workers.families.translation.srgan_config import SrganConfig

Make = Callable[..., Any]
CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
BATCH = 4


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what builds a small dataset of `pairs` or `domains`, once."""
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            directory = tmp_path_factory.mktemp(family)
            write = write_outlines if family == "pairs" else write_two_digits
            write(directory / "folder", train=6, val=2)
            built[family] = directory / "canonical"
            built[family].mkdir()
            import_folder(directory / "folder", built[family], source_format=None, family=family, limits=ImportLimits())
        return built[family]

    return get


def make(name: str, data: Callable[[str], Path], **sections: Any) -> Any:
    """Return a recipe of pairs or domains: its tiny preset with batches of four."""
    entry = CATALOG[f"translation/{name}"]
    config = entry.load_config().preset("tiny").model_dump(mode="json")
    config["data"]["batch_size"] = BATCH
    for section, values in sections.items():
        config[section] |= values
    return entry.load_recipe()(entry.load_config().model_validate(config), data(entry.datasets[0]))


def started(recipe: Any) -> TrainState:
    rng.seed_all(0)
    state: TrainState = recipe.build(CPU)
    return state


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of a few grey digits."""
    root = tmp_path_factory.mktemp("pictures")
    stored = root / "canonical"
    stored.mkdir()
    folder = write_digits(root / "in", size=32, train=6, val=4, classes=2)
    import_folder(folder, stored, source_format=None, family="images", limits=ImportLimits())
    return stored


@pytest.fixture
def inpaint(pictures: Path) -> Make:
    return _maker(Inpaint, InpaintConfig, pictures)


@pytest.fixture
def colorize(pictures: Path) -> Make:
    return _maker(Colorize, ColorizeConfig, pictures)


@pytest.fixture
def srgan(pictures: Path) -> Make:
    return _maker(Srgan, SrganConfig, pictures)


def _maker(recipe: type[Recipe[Any, Any]], config: type[RecipeConfig], directory: Path) -> Make:
    def make(**sections: dict[str, Any]) -> Any:
        document = config.preset("tiny").model_dump(mode="json")
        for name, section in sections.items():
            document[name] = {**document[name], **section} if isinstance(section, dict) else section
        return recipe(config.model_validate(document), directory)

    return make
