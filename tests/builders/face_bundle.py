"""A face bundle as training leaves it, with fresh weights of a fixed seed: real network, real handler, no training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.builders.face_endpoint import shots
from workers.families.base import Instance, ServingSpec
from workers.families.catalog import CATALOG
from workers.families.face.handler import FaceHandler
from workers.families.face.network import MILLION
from workers.families.images import MEAN, STD

RECIPE = "face/triplet"
THRESHOLD = 0.9999


def write_face_bundle(directory: Path, *, seed: int = 0, count: int = 3) -> Path:
    """Write a bundle whose embeddings nobody trained: equal pictures are alike, and no others are enough so."""
    entry = CATALOG[RECIPE]
    config = entry.load_config().preset("tiny")
    size: int = config.data.image_size  # type: ignore[attr-defined]
    normalisation = {"mean": list(MEAN), "std": list(STD)}
    constants = {"dim": config.model.dim, "crop": 1.0, "normalisation": normalisation}  # type: ignore[attr-defined]
    spec = ServingSpec((3, size, size), constants)
    torch.manual_seed(seed)
    module = entry.load_recipe().load_serving_module(config, spec).eval()
    module.get_buffer("threshold_millionths").fill_(round(THRESHOLD * MILLION))
    inputs = [shots(person)[0] for person in range(count)]
    answers = FaceHandler(spec).predict([Instance(body, {}, {}) for body in inputs], module)
    golden = directory / "golden"
    golden.mkdir(parents=True)
    for number, body in enumerate(inputs):
        (golden / f"{number:03d}.png").write_bytes(body)
    (golden / "answers.json").write_text(json.dumps(answers))
    save_file(module.state_dict(), directory / "weights.safetensors")
    document = {
        "recipe": RECIPE,
        "family": "face",
        "config": config.model_dump(mode="json"),
        "spec": {"input_shape": spec.input_shape, "constants": constants},
        "metrics": {},
        "step": 1,
        "versions": {},
    }
    (directory / "bundle.json").write_text(json.dumps(document))
    return directory
