"""A classification bundle as training leaves it, with fresh weights of a fixed seed: real network, real handler."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.builders.pictures import PICTURE, encoded
from workers.families.base import Instance, ServingSpec
from workers.families.catalog import CATALOG
from workers.families.classification.handler import ClassificationHandler

CLASSES = ["red", "green", "blue"]


def write_classification_bundle(directory: Path, *, recipe: str, seed: int = 0, count: int = 1) -> Path:
    """Write a bundle of a recipe's tiny preset that nobody trained, with `count` golden inputs."""
    entry = CATALOG[recipe]
    config = entry.load_config().preset("tiny")
    data = config.data  # type: ignore[attr-defined]
    constants = {"classes": CLASSES, "stored_size": data.stored_size, "scores": "softmax"}
    spec = ServingSpec((data.channels, data.image_size, data.image_size), constants)
    torch.manual_seed(seed)
    module = entry.load_recipe().load_serving_module(config, spec).eval()
    inputs = [encoded(PICTURE.rotate(23 * number)) for number in range(count)]
    with torch.inference_mode():
        answers = ClassificationHandler(spec).predict([Instance(body, {}, {}) for body in inputs], module)
    golden = directory / "golden"
    golden.mkdir(parents=True)
    for number, body in enumerate(inputs):
        (golden / f"{number:03d}.png").write_bytes(body)
    (golden / "answers.json").write_text(json.dumps(answers))
    save_file(module.state_dict(), directory / "weights.safetensors")
    document = {
        "recipe": recipe,
        "family": "classification",
        "config": config.model_dump(mode="json"),
        "spec": {"input_shape": spec.input_shape, "constants": constants},
        "metrics": {},
        "step": 1,
        "versions": {},
    }
    (directory / "bundle.json").write_text(json.dumps(document))
    return directory
