"""A recipe's own step in the shortest loop there is: no engine, no events, no checkpoints."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch

from workers import allocator
from workers.engine.process import process_settings
from workers.families.base import Placement, Recipe
from workers.families.catalog import CATALOG


def main(recipe_name: str, config_json: str, dataset_dir: str, threads: str, log_steps: str, memory: str) -> None:
    if memory == "kept":
        allocator.keep_freed_memory(allocator.TRAINING_BYTES)
    entry = CATALOG[recipe_name]
    config = entry.load_config().model_validate(json.loads(config_json))
    torch.manual_seed(config.runtime.seed)
    placement = Placement(
        torch.device("cpu"),
        torch.bfloat16 if config.runtime.precision == "bf16" else None,
        torch.channels_last if config.runtime.channels_last == "on" else torch.contiguous_format,
    )
    recipe = entry.load_recipe()(config, Path(dataset_dir))
    with process_settings(threads=int(threads), deterministic=config.runtime.deterministic):
        train(recipe, placement, log_steps=int(log_steps))


def train(recipe: Recipe[Any, Any], placement: Placement, *, log_steps: int) -> None:
    """Train until the process is killed; print the step at every `log_steps`th."""
    source = recipe.train_batches()
    state = recipe.build(placement)
    for step in itertools.count():
        recipe.train_step(state, recipe.to_device(source.batch(step), placement), placement)
        state.step += 1
        if state.step % log_steps == 0:
            print(state.step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
