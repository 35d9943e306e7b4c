"""What to type next: which recipe is a good first try for a dataset, and how a deployed family is asked.

Only words for people: a family that is not in these tables is worked with all the same, with a plainer hint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainyard.v1 import recipe_pb2

FIRST_RECIPES: Mapping[str, str] = {
    "classification": "classification/train",
    "detection": "detection/yolo_v1",
    "face": "face/triplet",
    "images": "gan/dcgan",
    "points": "gan/vanilla",
    "segmentation": "segmentation/fcn",
}
"""By the family of a dataset, a general recipe that starts from nothing; lists of recipes do not tell who needs weights."""

_FIRST_PRESET = "tiny"
_ASK = "trainyard predict {name} IMAGE"
_ASK_BY_FAMILY: Mapping[str, str] = {
    "detection": f"{_ASK} --draw out.png",
    "segmentation": f"{_ASK} --draw out.png",
    "gan": "trainyard predict {name} --param n=8 --draw out.png",
    "face": "trainyard galleries create GALLERY --deployment {name}",
}
# Its presets make points of a plane as a rule, and those are no picture.
_ASK_BY_RECIPE: Mapping[str, str] = {"gan/vanilla": "trainyard predict {name} --param n=8"}


def submit(dataset: str, family: str, recipes: Iterable[recipe_pb2.Recipe]) -> str:
    """Return the command that trains something on a dataset, of the recipes that the platform has; small where it can be."""
    recipe = next((each for each in recipes if each.recipe_id == FIRST_RECIPES.get(family)), None)
    if recipe is None:
        return "trainyard recipes list"
    has_small = any(preset.name == _FIRST_PRESET for preset in recipe.presets)
    preset = f" --preset {_FIRST_PRESET}" if has_small else ""
    return f"trainyard jobs submit {recipe.recipe_id} --dataset {dataset}{preset} --watch"


def ask(deployment: str, recipe: str) -> str:
    """Return a command that asks a deployment of a recipe's model something it can answer."""
    family = recipe.partition("/")[0]
    return (_ASK_BY_RECIPE.get(recipe) or _ASK_BY_FAMILY.get(family, _ASK)).format(name=deployment)
