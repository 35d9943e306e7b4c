"""Recipes on the wire."""

from __future__ import annotations

from trainyard.v1 import recipe_pb2 as pb

from services.core import names
from services.recipes.manager import Recipe
from services.rpc.structs import to_struct


def recipe_id(name: str) -> str:
    """Return the id in `recipes/{family}/{recipe}`; an id alone is taken too."""
    return name.removeprefix("recipes/")


def recipe_to_proto(recipe: Recipe) -> pb.Recipe:
    presets = [pb.Preset(name=name, config=to_struct(config)) for name, config in recipe.presets.items()]
    return pb.Recipe(
        name=names.recipe(recipe.id),
        recipe_id=recipe.id,
        family=recipe.family,
        dataset_families=recipe.dataset_families,
        description=recipe.summary,
        presets=presets,
        config_schema_json=recipe.schema_json,
    )


def summary_to_proto(recipe: Recipe) -> pb.Recipe:
    """Return what a list shows: no schema, and presets by name only."""
    presets = [pb.Preset(name=name) for name in recipe.config.preset_names()]
    return pb.Recipe(
        name=names.recipe(recipe.id),
        recipe_id=recipe.id,
        family=recipe.family,
        dataset_families=recipe.dataset_families,
        description=recipe.summary,
        presets=presets,
    )
