"""A detection bundle as training leaves it, with fresh weights of a fixed seed: real network, real handler, no training."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import nn

from workers.families.base import Instance, ServingSpec
from workers.families.catalog import CATALOG
from workers.families.detection.handler import DetectionHandler
from workers.families.images import MEAN, STD
from workers.families.letterbox import FILL

RECIPE = "detection/yolo_v1"
CLASSES = ["circle", "square", "triangle"]


def scene_png(seed: int, *, width: int = 120, height: int = 90) -> bytes:
    """Return a picture with two coloured shapes on noise."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(90, 150, (height, width, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(2):
        x, y = int(rng.integers(5, width - 45)), int(rng.integers(5, height - 45))
        draw.ellipse((x, y, x + 35, y + 30), fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def write_detection_bundle(
    directory: Path, *, seed: int = 0, count: int = 3, spoil: dict[str, Any] | None = None
) -> Path:
    """Write a bundle; `spoil` changes constants after the golden answers were made, so that they no longer hold."""
    entry = CATALOG[RECIPE]
    config = entry.load_config().preset("tiny")
    size = config.data.image_size  # type: ignore[attr-defined]
    constants: dict[str, Any] = {
        "classes": CLASSES,
        "thresholds": {"score_threshold": 0.2, "nms_iou": 0.5, "max_detections": 20},
        "normalisation": {"mean": list(MEAN), "std": list(STD)},
        "fill": list(FILL),
    }
    spec = ServingSpec((3, size, size), constants)
    module = with_loud_outputs(entry.load_recipe().load_serving_module(config, spec), seed)
    inputs = [scene_png(number) for number in range(count)]
    with torch.inference_mode():
        answers = DetectionHandler(spec).predict([Instance(body, {}, {}) for body in inputs], module)
    golden = directory / "golden"
    golden.mkdir(parents=True)
    for number, body in enumerate(inputs):
        (golden / f"{number:03d}.png").write_bytes(body)
    (golden / "answers.json").write_text(json.dumps(answers))
    save_file(module.state_dict(), directory / "weights.safetensors")
    document = {
        "recipe": RECIPE,
        "family": "detection",
        "config": config.model_dump(mode="json"),
        "spec": {"input_shape": spec.input_shape, "constants": {**constants, **(spoil or {})}},
        "metrics": {},
        "step": 1,
        "versions": {},
    }
    (directory / "bundle.json").write_text(json.dumps(document))
    return directory


def with_loud_outputs(module: nn.Module, seed: int) -> nn.Module:
    """Give fresh weights that find something: untrained scores are all near zero."""
    torch.manual_seed(seed)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
    nn.init.normal_(layers[-1].weight, std=0.003)
    assert layers[-1].bias is not None
    nn.init.uniform_(layers[-1].bias, 0.3, 0.9)
    return module.eval()
