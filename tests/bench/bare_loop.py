"""A recipe's own step in the shortest loop there is: no engine, no events, no checkpoints."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from workers.engine.process import process_settings
from workers.families.base import BatchSource, Placement, Recipe, TrainState
from workers.families.catalog import CATALOG


def main(recipe_name: str, config_json: str, dataset_dir: str, threads: str, steps: str) -> None:
    entry = CATALOG[recipe_name]
    config = entry.load_config().model_validate(json.loads(config_json))
    torch.manual_seed(config.runtime.seed)
    placement = Placement(
        torch.device("cpu"),
        torch.bfloat16 if config.runtime.precision == "bf16" else None,
        torch.channels_last if config.runtime.channels_last == "on" else torch.contiguous_format,
    )
    recipe = entry.load_recipe()(config, Path(dataset_dir))
    source = recipe.train_batches()
    state = recipe.build(placement)
    with process_settings(threads=int(threads), deterministic=config.runtime.deterministic):
        print(steps_per_second(recipe, source, state, placement, int(steps)))


def steps_per_second(
    recipe: Recipe[Any, Any], source: BatchSource[Any], state: TrainState, placement: Placement, steps: int
) -> float:
    warm_up = steps // 5
    begin = 0.0
    for step in range(steps):
        if step == warm_up:
            begin = time.perf_counter()
        recipe.train_step(state, recipe.to_device(source.batch(step), placement), placement)
        state.step += 1
    return (steps - warm_up) / (time.perf_counter() - begin)


if __name__ == "__main__":
    main(*sys.argv[1:])
