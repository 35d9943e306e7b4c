"""Errors name what a person typed."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from services.client.cli import main
from services.client.errors import ApiError, FieldViolation
from services.client.wording import FIELDS, PHRASES, as_typed, by_field, of_files

A, B = Path("a.png"), Path("b.png")


def refusal(message: str = "no", *, field: str = "", text: str = "", reason: str = "REQUEST_INVALID") -> ApiError:
    violations = [FieldViolation(field, text)] if field else []
    return ApiError("INVALID_ARGUMENT", reason, message, violations=violations, request_id="r")


def shown(error: ApiError) -> list[str]:
    return [f"{each.field}: {each.description}" for each in error.violations] or [error.message]


@pytest.mark.parametrize("command", sorted({*FIELDS, *PHRASES}))
def test_every_word_of_the_table_can_be_typed(command: str) -> None:
    known = {word for each in commands(command) for word in words(each)}

    assert known
    assert {word.strip() for word in FIELDS.get(command, {}).values()} <= known


def commands(path: str) -> list[click.Command]:
    """Return the command of a path, or all those of a group."""
    found: click.Command = main
    for name in path.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), name)
        assert inner is not None, path
        found = inner
    if not path:
        return commands("jobs")
    return list(found.commands.values()) if isinstance(found, click.Group) else [found]


def words(command: click.Command) -> set[str]:
    context = click.Context(command)
    arguments = {each.make_metavar(context).strip("[].") for each in command.params if isinstance(each, click.Argument)}
    return arguments | {name for each in command.params for name in each.opts if name.startswith("--")}


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        pytest.param("init_from", "is odd", "--init-from: is odd", id="a field"),
        pytest.param("config", "a needs b", "--set: a needs b", id="a whole config"),
        pytest.param("config.optim.lr", "is odd", "--set optim.lr: is odd", id="a value of a config"),
        pytest.param("labels['a']", "is odd", "labels['a']: is odd", id="a field that no option fills"),
        pytest.param("recipe", "has no priority", "RECIPE: has no priority", id="a plain word of a sentence stays"),
        pytest.param("recipe", "needs init_from.", "RECIPE: needs --init-from.", id="a field in a sentence"),
        pytest.param("config.a", "no 'init_from' here", "--set a: no 'init_from' here", id="what was typed stays"),
        pytest.param("recipe", "raise data.batch_size", "RECIPE: raise data.batch_size", id="a key of a config stays"),
        pytest.param("recipe", "no 'an init_from b'", "RECIPE: no 'an init_from b'", id="all that was typed stays"),
        pytest.param("recipe", "model_id.json/x", "RECIPE: model_id.json/x", id="the beginning of a path stays"),
        pytest.param("a", "projects/p/models/rn/versions/1 is", "a: rn/1 is", id="a model version's name is short"),
        pytest.param("a", "projects/p/jobs/01j/checkpoints/01c", "a: 01j/01c", id="a checkpoint's name is short"),
        pytest.param("a", "no 'projects/p/models/m/versions/1'", "a: no 'projects/p/models/m/versions/1'", id="quoted"),
        pytest.param("dataset", "see /init_from/model_id", "--dataset: see /init_from/model_id", id="a path stays"),
    ],
)
def test_a_field_is_named_as_it_is_typed(field: str, text: str, expected: str) -> None:
    assert shown(as_typed(refusal(field=field, text=text), "jobs submit")) == [expected]


def test_a_message_without_fields_is_in_the_words_of_its_command() -> None:
    error = refusal("bob is there; set replace_existing to go on")

    assert shown(as_typed(error, "galleries enrol")) == ["bob is there; add --replace to go on"]
    assert shown(as_typed(error, "jobs list")) == [error.message]
    assert as_typed(error, "galleries enrol").request_id == "r"


def test_a_field_of_a_group_is_overruled_by_the_command() -> None:
    error = refusal(field="parent", text="is odd")

    assert shown(as_typed(error, "models list")) == ["--model: is odd"]
    assert shown(as_typed(error, "jobs list")) == ["--project: is odd"]


def test_places_in_a_dataset_are_no_fields() -> None:
    error = refusal(field="family", text="is no split", reason="INVALID_DATASET")

    assert shown(as_typed(error, "datasets import")) == ["family: is no split"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(refusal(field="images[1]", text="is cut"), "b.png: is cut", id="a field"),
        pytest.param(refusal(field="images[0].content", text="is cut"), "a.png: is cut", id="a field of a field"),
        pytest.param(refusal(field="name", text="is odd"), "name: is odd", id="a field of something else"),
        pytest.param(refusal("is cut"), "a.png, b.png: is cut", id="a fault of every one"),
        pytest.param(refusal("instance 1: is cut"), "b.png: is cut", id="an instance by its number"),
        pytest.param(refusal("instance 7: is cut"), "instance 7: is cut", id="an instance nobody sent"),
    ],
)
def test_a_file_is_named_in_the_place_of_its_field(error: ApiError, expected: str) -> None:
    assert shown(of_files(error, by_field("images", [A, B]))) == [expected]


def test_an_error_that_is_not_about_the_input_names_no_file() -> None:
    error = ApiError("UNAVAILABLE", "UNAVAILABLE", "nobody answers")

    assert of_files(error, by_field("images", [A])) is error


def test_what_the_server_said_is_kept_through_every_rewording() -> None:
    error = refusal(field="images[1]", text="is cut")

    assert as_typed(of_files(error, by_field("images", [A, B])), "galleries enrol").as_sent is error
    assert error.as_sent is error
