"""`trainyard recipes`: what can be trained, and with which hyper-parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
from trainyard.v1 import recipe_pb2

from services.client.command import CommandFailed, Invocation, command
from services.client.output import Output
from services.client.plain import as_dict


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
    configs = {each.name: as_dict(each)["config"] for each in recipe.presets}
    if preset not in configs:
        raise CommandFailed(f"{recipe.recipe_id} has no preset {preset!r}; use one of {', '.join(configs)}")
    out.say(f"{recipe.recipe_id}: {recipe.description}")
    out.say(f"trains on: {' or '.join(recipe.dataset_families)} datasets")
    out.say(f"presets: {', '.join(configs)}; change a value with --set KEY=VALUE\n")
    schema = json.loads(recipe.config_schema_json)
    rows = list(_settings(schema, schema, configs[preset] or {}, ""))
    out.table(("KEY", f"VALUE ({preset})", "MEANING"), rows, empty="no hyper-parameters")


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
