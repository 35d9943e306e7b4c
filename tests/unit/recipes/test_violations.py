from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import Field, model_validator

from services.core.errors import RecipeNotFound, RequestInvalid
from services.recipes.manager import Recipe, RecipeManager
from workers.families.catalog import CATALOG, Entry
from workers.families.config import RecipeConfig, Section


class Optim(Section):
    """The optimizer."""

    lr: float = Field(0.1, gt=0, description="Learning rate.")
    betas: tuple[float, float] = (0.9, 0.99)


class Config(RecipeConfig):
    """A config with everything that can go wrong."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"optim": {"lr": 0.5}, "depth": 2}}

    optim: Optim = Optim()
    warmup: Optim = Optim(lr=0.001)
    depth: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _deep_networks_learn_slowly(self) -> Config:
        if self.depth > 8 and self.optim.lr > 1:
            raise ValueError("optim.lr must be at most 1 for a depth above 8")
        return self


@pytest.fixture
def recipe() -> Recipe:
    entry = Entry(config=f"{__name__}:Config", recipe="", handler="", summary="A test.")
    recipe = Recipe("test/one", entry)
    recipe.__dict__["config"] = Config
    return recipe


def violations(recipe: Recipe, preset: str = "full", **overrides: Any) -> dict[str, str]:
    with pytest.raises(RequestInvalid) as caught:
        recipe.resolve(preset, overrides)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_overrides_lie_over_the_preset_key_by_key(recipe: Recipe) -> None:
    config = recipe.resolve("tiny", {"optim": {"betas": [0.5, 0.9]}})

    assert config.model_dump()["optim"] == {"lr": 0.5, "betas": (0.5, 0.9)}
    assert config.model_dump()["depth"] == 2


def test_a_preset_is_not_changed_by_an_override(recipe: Recipe) -> None:
    recipe.resolve("tiny", {"optim": {"lr": 0.25}})

    assert Config.PRESETS["tiny"] == {"optim": {"lr": 0.5}, "depth": 2}


def test_all_violations_come_at_once_with_paths_and_remedies(recipe: Recipe) -> None:
    found = violations(recipe, optim={"lr": -1, "betas": [0.9, "x"], "momentun": 1}, depht=3)

    assert set(found) == {"config.optim.lr", "config.optim.betas[1]", "config.optim.momentun", "config.depht"}
    assert found["config.optim.lr"] == "Input should be greater than 0, not -1. Learning rate. Default: 0.1."
    assert "did you mean 'depth'?" in found["config.depht"]


@pytest.mark.parametrize(
    ("preset", "default"),
    [
        pytest.param("full", "0.1", id="the preset of defaults"),
        pytest.param("tiny", "0.5", id="a preset that sets the field"),
    ],
)
def test_the_default_that_is_quoted_is_the_preset_s(recipe: Recipe, preset: str, default: str) -> None:
    found = violations(recipe, preset, optim={"lr": -1})

    assert found["config.optim.lr"].endswith(f"Learning rate. Default: {default}.")


def test_a_default_that_the_section_gives_goes_before_that_of_its_class(recipe: Recipe) -> None:
    assert violations(recipe, warmup={"lr": -1})["config.warmup.lr"].endswith("Learning rate. Default: 0.001.")


def test_a_key_of_another_section_is_shown_its_place(recipe: Recipe) -> None:
    assert violations(recipe, lr=1)["config.lr"] == "there is no 'lr' here; did you mean config.optim.lr?"


@pytest.mark.parametrize("key", ["", " ", "../../etc/passwd", "a b", "\0", "1", "int", "é" * 300])
def test_a_key_of_any_letters_is_named_where_it_stands(recipe: Recipe, key: str) -> None:
    found = violations(recipe, **{key: 1, "optim": {key: 1}})

    places = {f"config[{key!r}]", f"config.optim[{key!r}]"}
    assert set(found) == (places if not key.isidentifier() else {f"config.{key}", f"config.optim.{key}"})
    assert all(text.startswith(f"there is no {key!r} here") for text in found.values())


def test_a_rule_across_fields_speaks_for_itself(recipe: Recipe) -> None:
    found = violations(recipe, optim={"lr": 2}, depth=9)

    assert found == {"config": "optim.lr must be at most 1 for a depth above 8"}


def test_a_section_that_is_none_is_refused(recipe: Recipe) -> None:
    assert "config.optim" in violations(recipe, optim=3)


def test_an_unknown_recipe_is_answered_with_close_ones() -> None:
    manager = RecipeManager.of_catalog()

    with pytest.raises(RecipeNotFound, match="detection/ssd"):
        manager.get("detection/sdd")


@pytest.mark.parametrize("recipe_id", sorted(CATALOG))
def test_every_recipe_of_the_catalog_has_presets_and_a_schema(recipe_id: str) -> None:
    recipe = RecipeManager.of_catalog().get(recipe_id)

    assert {"full", "tiny"} <= set(recipe.presets)
    assert '"properties"' in recipe.schema_json
    for preset, values in recipe.presets.items():
        assert recipe.resolve(preset, values).model_dump(mode="json") == values
