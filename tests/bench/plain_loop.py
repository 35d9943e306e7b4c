"""A recipe trained as reference repositories train: fp32, NCHW, eager, images decoded at every use, scalars read each step."""

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

PLAIN = Placement(torch.device("cpu"), None, torch.contiguous_format)


def main(recipe_name: str, config_json: str, dataset_dir: str, threads: str, steps: str) -> None:
    entry = CATALOG[recipe_name]
    document = json.loads(config_json)
    if "cache_mib" in document["data"]:
        document["data"]["cache_mib"] = 0
    config = entry.load_config().model_validate(document)
    torch.manual_seed(config.runtime.seed)
    with process_settings(threads=int(threads), deterministic=False):
        recipe = entry.load_recipe()(config, Path(dataset_dir))
        print(samples_per_second(recipe, recipe.train_batches(), recipe.build(PLAIN), int(steps)))


def samples_per_second(recipe: Recipe[Any, Any], source: BatchSource[Any], state: TrainState, steps: int) -> float:
    warm_up = steps // 5
    begin = 0.0
    for step in range(steps):
        if step == warm_up:
            begin = time.perf_counter()
        scalars = recipe.train_step(state, recipe.to_device(source.batch(step), PLAIN), PLAIN)
        state.step += 1
        for value in scalars.values():
            value.item()
    return source.batch_size * (steps - warm_up) / (time.perf_counter() - begin)


if __name__ == "__main__":
    main(*sys.argv[1:])
