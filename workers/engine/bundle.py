"""What serving gets of a training: the served network's weights in fp32, constants, and golden answers.

bundle.json           recipe, family, config, spec, metrics and their judge, step, versions, and what training started from
weights.safetensors   the serving module's state
golden/000.png ...    encoded held-out inputs
golden/answers.json   what the evaluation path answers to them, in the same order
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workers.engine.tensorfile import sync_directory, write_bytes, write_tensors
from workers.families.base import Golden, Placement, Recipe, TrainState
from workers.families.catalog import family_of

GOLDEN_COUNT = 16
"""All judge every served form of the network; where one in int8 is built, half of them calibrate it."""
_MAGIC = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg"}


def write_bundle(
    directory: Path,
    recipe: Recipe[Any, Any],
    state: TrainState,
    *,
    name: str,
    device: torch.device,
    metrics: Mapping[str, float],
    judge: Mapping[str, str],
    origin: str = "",
) -> None:
    """Write a bundle to a new directory, which appears only whole; `name` is the recipe's in the catalog."""
    partial = directory.with_name(f"{directory.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "golden").mkdir(parents=True)
    module = recipe.serving_module(state)
    write_tensors(partial / "weights.safetensors", _weights(module))
    spec = recipe.serving_spec()
    document = {
        "recipe": name,
        "family": family_of(name),
        "config": recipe.config.model_dump(mode="json"),
        "spec": {"input_shape": list(spec.input_shape), "constants": dict(spec.constants)},
        "metrics": dict(metrics),
        "judge": dict(judge),
        "step": state.step,
        "origin": origin,
        "versions": {"torch": torch.__version__},
    }
    _write_json(partial / "bundle.json", document)
    plain = Placement(device, None, torch.contiguous_format)
    _write_golden(partial / "golden", recipe.golden(state, plain, GOLDEN_COUNT))
    sync_directory(partial)
    partial.rename(directory)
    sync_directory(directory.parent)


def _weights(module: nn.Module) -> dict[str, torch.Tensor]:
    weights = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def _write_golden(directory: Path, golden: Golden) -> None:
    for number, body in enumerate(golden.inputs):
        write_bytes(directory / f"{number:03d}.{_extension(body)}", iter([body]))
    _write_json(directory / "answers.json", list(golden.answers))
    sync_directory(directory)


def _extension(body: bytes) -> str:
    return next((extension for magic, extension in _MAGIC.items() if body.startswith(magic)), "bin")


def _write_json(path: Path, document: object) -> None:
    write_bytes(path, iter([json.dumps(document, indent=1, sort_keys=True).encode()]))
