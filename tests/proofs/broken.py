"""Trains one spoilt recipe in this process, as told by JSON on stdin; the last line says its last evaluation."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.recipes.manager import RecipeManager
from tests.builders.training import attempt
from workers.engine.plan import SourcePlan
from workers.families.catalog import CATALOG
from workers.families.config import Origin


def main() -> None:
    order: dict[str, Any] = json.load(sys.stdin)
    name, place = order["recipe"], Path(order["place"])
    config = RecipeManager.of_catalog().get(name).resolve("tiny", order["overrides"])
    source = None if order["start"] is None else _source(Path(order["start"]))
    if source is not None:
        config = config.adopt(Origin(source.name, source.kind, source.recipe, source.config))
    outcome = attempt(
        place,
        config.model_dump(mode="json"),
        recipe=name,
        catalog={name: replace(CATALOG[name], recipe=order["broken"])},
        dataset_dir=place / "canonical",
        source=source,
    )
    if outcome.error is not None:
        raise outcome.error
    Path(outcome.spool_dir).rename(place / "spool")
    print(json.dumps(dict(outcome.final["metrics"])))


def _source(bundle: Path) -> SourcePlan:
    document = json.loads((bundle / "bundle.json").read_bytes())
    return SourcePlan(
        name="source", kind="model", recipe=document["recipe"], config=document["config"], directory=bundle
    )


if __name__ == "__main__":
    main()
