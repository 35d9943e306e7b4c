"""`trainyard recipes`: what can be trained, and with which hyper-parameters."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import click
from trainyard.v1 import recipe_pb2

from services.client.command import CommandFailed, Invocation, command
from services.client.output import Output
from services.client.plain import as_dict

_WIDTH = 110
"""Columns of a page that is no terminal's."""
_LEAST_CELL = 20
"""Columns of a value and of a meaning where a terminal is too narrow for more."""


@click.group()
def recipes() -> None:
    """See what can be trained."""


@recipes.command("list")
@click.option("--family", default="", help="Only recipes of this family.")
@command
def list_(invocation: Invocation, *, family: str) -> None:
    """List the recipes."""
    with invocation.client() as client:
        found = list(client.list_recipes(family=family))
    if invocation.out.is_json:
        invocation.out.document({"recipes": [as_dict(each) for each in found]})
        return
    rows = [(each.recipe_id, ", ".join(preset.name for preset in each.presets), each.description) for each in found]
    invocation.out.table(("RECIPE", "PRESETS", "DESCRIPTION"), rows, empty="no recipes")


@recipes.command()
@click.argument("recipe")
@click.option("--preset", default="full", show_default=True, help="Whose values to show.")
@command
def show(invocation: Invocation, *, recipe: str, preset: str) -> None:
    """Show every hyper-parameter of a recipe with its value, its limits and what it means."""
    with invocation.client() as client:
        found = client.get_recipe(recipe)
    if invocation.out.is_json:
        invocation.out.document({**as_dict(found), "config_schema": json.loads(found.config_schema_json)})
        return
    _show(invocation.out, found, preset)


def _show(out: Output, recipe: recipe_pb2.Recipe, preset: str) -> None:
    configs = {each.name: as_dict(each)["config"] or {} for each in recipe.presets}
    if preset not in configs:
        raise CommandFailed(f"{recipe.recipe_id} has no preset {preset!r}; use one of {', '.join(configs)}")
    schema = json.loads(recipe.config_schema_json)
    rows = list(_settings(schema, schema, configs[preset], ""))
    width = shutil.get_terminal_size((_WIDTH, 0)).columns
    out.say(f"{recipe.recipe_id}: {recipe.description}")
    out.say(f"trains on: {' or '.join(recipe.dataset_families)} datasets")
    out.say(f"preset: {preset}; change a value with --set KEY=VALUE")
    for other in (name for name in configs if name != preset):
        out.say(_changes(other, _values(rows), _values(_settings(schema, schema, configs[other], "")), width))
    out.say("")
    out.table(("KEY", "VALUE", "MEANING"), _wrapped(rows, width), empty="no hyper-parameters")


def _values(settings: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    return {key: value for key, value, _ in settings}


def _changes(name: str, shown: Mapping[str, str], other: Mapping[str, str], width: int) -> str:
    """Return which values another preset has otherwise than the one that is shown."""
    changed = [key for key in {**shown, **other} if shown.get(key) != other.get(key)]
    text = f"preset {name} has other values of {', '.join(changed)}" if changed else f"preset {name} is the same"
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _wrapped(settings: Sequence[tuple[str, str, str]], width: int) -> Iterator[tuple[str, str, str]]:
    """Yield settings with long values and meanings on as many lines as they need to stay within a terminal's width."""
    keys = max((len(key) for key, _, _ in settings), default=0)
    values = min(max(_LEAST_CELL, width // 4), max((len(value) for _, value, _ in settings), default=0))
    meanings = max(_LEAST_CELL, width - keys - values - 2 * len("  "))
    for key, value, meaning in settings:
        parts = textwrap.wrap(value, values), textwrap.wrap(meaning, meanings, break_on_hyphens=False)
        yield from zip_longest([key], *parts, fillvalue="")


def _settings(
    schema: Mapping[str, Any], node: Mapping[str, Any], values: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, str, str]]:
    for name, reference in node.get("properties", {}).items():
        part = _resolve(schema, reference)
        value = values.get(name)
        if "properties" in part and isinstance(value, Mapping):
            yield from _settings(schema, part, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value), _meaning({**part, **reference})


def _resolve(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference into the schema's own definitions."""
    if "$ref" not in node:
        return node
    name = str(node["$ref"]).rpartition("/")[2]
    found: Mapping[str, Any] = schema["$defs"][name]
    return found


def _meaning(node: Mapping[str, Any]) -> str:
    limits = [
        f"{sign} {node[key]}"
        for key, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if key in node
    ]
    choices = [f"one of {', '.join(map(str, node['enum']))}"] if "enum" in node else []
    rules = ", ".join(choices + limits)
    return " ".join(part for part in (str(node.get("description", "")), f"({rules})" if rules else "") if part)
