"""What a command says to type next can be typed."""

from __future__ import annotations

import pytest
from trainyard.v1 import recipe_pb2

from services.client import hints
from services.client.hints import FIRST_RECIPES
from workers.families.catalog import CATALOG

LISTED = [
    recipe_pb2.Recipe(recipe_id=name, presets=[recipe_pb2.Preset(name="full"), recipe_pb2.Preset(name="tiny")])
    for name in sorted(CATALOG)
]


@pytest.mark.parametrize(("family", "recipe"), FIRST_RECIPES.items())
def test_the_first_recipe_of_a_family_reads_its_data_starts_from_nothing_and_has_a_small_preset(
    family: str, recipe: str
) -> None:
    entry = CATALOG[recipe]
    config = entry.load_config()

    assert family in (entry.datasets or (recipe.partition("/")[0],))
    assert not config.NEEDS_SOURCE
    assert config.preset("tiny")


def test_what_a_dataset_could_train_is_small_at_first() -> None:
    command = hints.submit("cats", "classification", LISTED)

    assert command == "trainyard jobs submit classification/train --dataset cats --preset tiny --watch"


def test_two_pictures_of_which_none_is_held_out_are_for_the_recipe_that_needs_no_more() -> None:
    assert hints.submit("cats", "domains", LISTED).startswith("trainyard jobs submit translation/cyclegan ")
    assert hints.submit("cats", "domains", LISTED, has_val=False) == (
        "trainyard jobs submit style/gatys --dataset cats --preset tiny --watch"
    )


def test_pictures_of_a_style_are_for_the_recipe_that_repaints_in_it() -> None:
    command = hints.submit("cats", "domains", LISTED, classes=["content", "style"])

    assert command.startswith("trainyard jobs submit style/fast ")


@pytest.mark.parametrize(
    ("family", "listed"),
    [
        pytest.param("odd", LISTED, id="a family of another release"),
        pytest.param("detection", [], id="a platform without the recipe"),
    ],
)
def test_without_a_first_recipe_the_list_is_named(family: str, listed: list[recipe_pb2.Recipe]) -> None:
    assert hints.submit("cats", family, listed) == "trainyard recipes list"


@pytest.mark.parametrize(
    ("recipe", "command"),
    [
        pytest.param("detection/ssd", "trainyard predict d IMAGE --draw out.png", id="boxes are drawn"),
        pytest.param("segmentation/fcn", "trainyard predict d IMAGE --draw out.png", id="a mask is a picture"),
        pytest.param("translation/pix2pix", "trainyard predict d IMAGE --draw out.png", id="a picture redrawn"),
        pytest.param("gan/dcgan", "trainyard predict d --param n=8 --draw out.png", id="a generator takes no image"),
        pytest.param("gan/vanilla", "trainyard predict d --param n=8", id="points are no picture"),
        pytest.param("classification/vit", "trainyard predict d IMAGE", id="labels cannot be drawn"),
        pytest.param("face/triplet", "trainyard galleries create GALLERY --deployment d", id="faces need a gallery"),
        pytest.param("odd/one", "trainyard predict d IMAGE", id="a family of another release"),
    ],
)
def test_a_deployment_is_asked_what_it_can_answer(recipe: str, command: str) -> None:
    assert hints.ask("d", recipe) == command
