"""What to type next: which recipe is a good first try for a dataset, and how a deployed family is asked.

Only words for people: a family that is not in these tables is worked with all the same, with a plainer hint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from statistics import median

from trainyard.v1 import dataset_pb2, recipe_pb2

from services.client.plain import as_dict

FIRST_RECIPES: Mapping[str, str] = {
    "classification": "classification/train",
    "detection": "detection/yolo_v1",
    "domains": "translation/cyclegan",
    "face": "face/triplet",
    "images": "gan/dcgan",
    "pairs": "translation/pix2pix",
    "points": "gan/vanilla",
    "segmentation": "segmentation/fcn",
    "text": "text/rnn_lm",
    "parallel_text": "text/transformer",
}
"""By the family of a dataset, a general recipe that starts from nothing; lists of recipes do not tell who needs weights."""

# All others of two domains need held-out pictures.
_WITHOUT_HELD_OUT: Mapping[str, str] = {"domains": "style/gatys"}
_FIRST_PRESET = "tiny"
_ASK = "trainyard predict {name} IMAGE"
_ASK_BY_FAMILY: Mapping[str, str] = {
    "detection": f"{_ASK} --draw out.png",
    "segmentation": f"{_ASK} --draw out.png",
    "translation": f"{_ASK} --draw out.png",
    "gan": "trainyard predict {name} --param n=8 --draw out.png",
    "text": "trainyard predict {name} --text 'WORDS'",
    "representation": f"{_ASK} --draw out.png",
    "style": f"{_ASK} --draw out.png",
    "face": "trainyard galleries create GALLERY --deployment {name}",
}
# Its presets make points of a plane as a rule, and those are no picture.
_ASK_BY_RECIPE: Mapping[str, str] = {
    "gan/vanilla": "trainyard predict {name} --param n=8",
    # A finished picture: there is nothing to send.
    "style/gatys": "trainyard predict {name} --draw out.png",
}

PEOPLE = "taken as classification; if the folders are people, import with --family face"
_LEAST_PEOPLE = 20
_MOST_IMAGES_OF_ONE = 20


def submit(
    dataset: str,
    family: str,
    recipes: Iterable[recipe_pb2.Recipe],
    *,
    has_val: bool = True,
    classes: Collection[str] = (),
) -> str:
    """Return the command that trains something on a dataset, of the recipes that the platform has; small where it can be."""
    wanted = FIRST_RECIPES.get(family) if has_val else _WITHOUT_HELD_OUT.get(family)
    if has_val and family == "domains" and "style" in classes:
        wanted = "style/fast"
    recipe = next((each for each in recipes if each.recipe_id == wanted), None)
    if recipe is None:
        return "trainyard recipes list"
    has_small = any(preset.name == _FIRST_PRESET for preset in recipe.presets)
    preset = f" --preset {_FIRST_PRESET}" if has_small else ""
    return f"trainyard jobs submit {recipe.recipe_id} --dataset {dataset}{preset} --watch"


def may_be_people(dataset: dataset_pb2.Dataset) -> bool:
    """Return whether folders that were taken as classes may be people: many, of a few images each."""
    is_of_folders = dataset.format == dataset_pb2.DATASET_FORMAT_IMAGE_FOLDER and dataset.family == "classification"
    if not is_of_folders or not dataset.HasField("report"):
        return False
    images: Counter[str] = Counter()
    for split in as_dict(dataset)["report"].get("splits", {}).values():
        images.update(split.get("images_per_class") or {})
    return len(images) >= _LEAST_PEOPLE and median(images.values()) <= _MOST_IMAGES_OF_ONE


def ask(deployment: str, recipe: str) -> str:
    """Return a command that asks a deployment of a recipe's model something it can answer."""
    family = recipe.partition("/")[0]
    return (_ASK_BY_RECIPE.get(recipe) or _ASK_BY_FAMILY.get(family, _ASK)).format(name=deployment)
