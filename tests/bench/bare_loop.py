"""A recipe's own step in the shortest loop there is: no engine, no events, no checkpoints."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from workers.families.base import Placement
from workers.families.catalog import CATALOG


def main(recipe_name: str, config_json: str, dataset_dir: str, threads: str, steps: str) -> None:
    torch.set_num_threads(int(threads))
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
    warm_up, total = int(steps) // 5, int(steps)
    begin = 0.0
    for step in range(total):
        if step == warm_up:
            begin = time.perf_counter()
        recipe.train_step(state, recipe.to_device(source.batch(step), placement), placement)
        state.step += 1
    print((total - warm_up) / (time.perf_counter() - begin))


if __name__ == "__main__":
    main(*sys.argv[1:])
