"""The recipes of the catalog, their presets and the checking of a config against them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from services.core.errors import RecipeNotFound, RequestInvalid, Violation
from services.recipes.violations import config_violations
from workers.families.catalog import CATALOG, Entry, family_of
from workers.families.config import RecipeConfig


class Recipe:
    """One entry of the catalog; its config class is imported when first needed."""

    def __init__(self, recipe_id: str, entry: Entry) -> None:
        self.id = recipe_id
        self.family = family_of(recipe_id)
        self.dataset_families = entry.datasets or (self.family,)
        self.summary = entry.summary
        self.needs_labels = entry.needs_labels
        self.serves_embeddings = entry.serves_embeddings
        self._entry = entry

    @cached_property
    def config(self) -> type[RecipeConfig]:
        return self._entry.load_config()

    @cached_property
    def schema_json(self) -> str:
        return json.dumps(self.config.model_json_schema(), sort_keys=True)

    @cached_property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Return every preset as a complete config of JSON values."""
        return {name: self.config.preset(name).model_dump(mode="json") for name in self.config.preset_names()}

    def resolve(self, preset: str, overrides: Mapping[str, Any]) -> RecipeConfig:
        """Lay `overrides` over a preset and return the complete config.

        Raises:
            RequestInvalid: an unknown preset, or every violation of the config at once.
        """
        if preset not in self.config.preset_names():
            names = ", ".join(self.config.preset_names())
            text = f"recipe {self.id!r} has no preset {preset!r}; use one of: {names}"
            raise RequestInvalid(violations=[Violation("preset", text)])
        base = {} if preset == "full" else self.config.PRESETS[preset]
        merged = _merge(base, overrides)
        try:
            return self.config.model_validate(merged)
        except ValidationError as err:
            raise RequestInvalid(violations=config_violations(self.config, err, self.presets[preset])) from err


@dataclass(frozen=True, slots=True)
class RecipeManager:
    """Finds recipes by id."""

    recipes: Mapping[str, Recipe]

    @classmethod
    def of_catalog(cls, catalog: Mapping[str, Entry] = CATALOG) -> RecipeManager:
        return cls({recipe_id: Recipe(recipe_id, catalog[recipe_id]) for recipe_id in sorted(catalog)})

    def get(self, recipe_id: str) -> Recipe:
        """Return a recipe.

        Raises:
            RecipeNotFound: there is none; the message names close ones.
        """
        found = self.recipes.get(recipe_id)
        if found is None:
            raise RecipeNotFound(self.explain_unknown(recipe_id))
        return found

    def explain_unknown(self, recipe_id: str) -> str:
        close = difflib.get_close_matches(recipe_id, self.recipes, n=3, cutoff=0.4)
        known = f"did you mean {' or '.join(repr(name) for name in close)}?" if close else f"use {_list(self.recipes)}"
        return f"there is no recipe {recipe_id!r}; {known}"

    def page(self, *, limit: int, after: str | None, family: str | None) -> list[Recipe]:
        """Return up to `limit` recipes by id, after the id last seen."""
        ids = [recipe_id for recipe_id in self.recipes if after is None or recipe_id > after]
        found = [self.recipes[recipe_id] for recipe_id in ids if family in (None, self.recipes[recipe_id].family)]
        return found[:limit]


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `overrides` laid over it, section by section; lists are replaced whole."""
    merged = dict(base)
    for key, value in overrides.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _list(names: Mapping[str, Any]) -> str:
    return "one of: " + ", ".join(names)
