from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from workers.families.base import Recipe
from workers.families.config import RecipeConfig
from workers.families.translation.colorize import Colorize
from workers.families.translation.inpaint import Inpaint
from workers.families.translation.pictures_config import ColorizeConfig, InpaintConfig
from workers.families.translation.srgan import Srgan
from workers.families.translation.srgan_config import SrganConfig

Make = Callable[..., Any]


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
