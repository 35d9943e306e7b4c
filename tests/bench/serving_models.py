"""The same networks twice: as an archive of ours, and as TorchServe's own handlers want them. Fresh weights of one seed.

The stock archives hold torchvision's networks, or ours behind the outputs that the stock handler reads; all eager fp32.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from services.core.target import ServingTarget
from services.datasets.digit_scenes import PHOTOS, photo
from tests.builders.detection_bundle import with_loud_outputs
from workers.engine.frames import FrameWriter
from workers.families.base import Instance, ServingSpec
from workers.families.catalog import CATALOG, family_of
from workers.families.images import MEAN, STD
from workers.families.letterbox import FILL
from workers.serving.build import BuildPlan, build

NUM_CLASSES = 1000
GOLDEN_COUNT = 8
"""Of the twelve photos."""
_NORMALISATION = {"mean": list(MEAN), "std": list(STD)}
_DETECTION = {"score_threshold": 0.5, "nms_iou": 0.5, "max_detections": 100}
# The stock handlers import captum and make one object of it, for explanations that nobody asks for here.
_CAPTUM = """
class IntegratedGradients:
    def __init__(self, model):
        pass
"""
_RESNET = """
from torchvision.models.resnet import BasicBlock, ResNet


class Stock(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2])
"""
_SEGMENTER = """
from torch import nn
from torchvision.models.segmentation import fcn_resnet50


class Stock(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=False)

    def forward(self, images):
        return self.net(images)
"""
_DETECTOR = """
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import batched_nms

from tests.bench.serving_models import build_detector
from workers.families.images import MEAN, STD


class Stock(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.size = build_detector()

    def forward(self, images):
        mean, std = (torch.tensor(one)[:, None, None] for one in (MEAN, STD))
        squares = functional.interpolate(images * 255, (self.size, self.size), mode="bilinear", antialias=True)
        found = []
        for boxes, scores in zip(*self.net((squares - mean) / std)):
            best, labels = scores.max(1)
            kept = batched_nms(boxes, best, labels, 0.5)[:100]
            found.append({"boxes": boxes[kept], "labels": labels[kept] + 1, "scores": best[kept]})
        return found
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One network to serve."""

    name: str
    recipe: str
    config: Mapping[str, Any]
    constants: Mapping[str, Any]
    input_shape: tuple[int, int, int]
    stock_handler: str
    stock_model: str


def cases() -> list[Case]:
    detector = CATALOG["detection/yolo_v1"].load_config().preset("digits").model_dump(mode="json")
    size = int(detector["data"]["image_size"])
    return [
        Case(
            "resnet18",
            "classification/train",
            {"model": {"name": "resnet18"}},
            {
                "classes": [f"class {n}" for n in range(NUM_CLASSES)],
                "stored_size": 256,
                "scores": "softmax",
                "normalisation": _NORMALISATION,
            },
            (3, 224, 224),
            "image_classifier",
            _RESNET,
        ),
        Case(
            "yolo_v1",
            "detection/yolo_v1",
            detector,
            {
                "classes": [str(n) for n in range(10)],
                "thresholds": _DETECTION,
                "normalisation": _NORMALISATION,
                "fill": list(FILL),
            },
            (3, size, size),
            "object_detector",
            _DETECTOR,
        ),
        Case(
            "fcn_resnet50",
            "segmentation/torchvision",
            {"data": {"image_size": 224}, "model": {"name": "fcn_resnet50"}},
            {"classes": [f"class {n}" for n in range(21)], "normalisation": _NORMALISATION, "fill": list(FILL)},
            (3, 224, 224),
            "image_segmenter",
            _SEGMENTER,
        ),
    ]


def jpegs(count: int = 12) -> list[bytes]:
    """Return photos of 640 x 480, as cameras send them."""
    names = [name for names in PHOTOS.values() for name in names]
    found = []
    for name in names[:count]:
        stream = io.BytesIO()
        photo(name).convert("RGB").resize((640, 480)).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def network_of(case: Case) -> nn.Module:
    """Build the served network of a case with the weights that every archive of it has."""
    entry = CATALOG[case.recipe]
    torch.manual_seed(0)
    spec = ServingSpec(case.input_shape, case.constants)
    module = entry.load_recipe().load_serving_module(entry.load_config().model_validate(case.config), spec).eval()
    return with_loud_outputs(module, 0) if family_of(case.recipe) == "detection" else module


def build_detector() -> tuple[nn.Module, int]:
    """Return the detection network and the side of its input, for the stock archive."""
    case = next(case for case in cases() if family_of(case.recipe) == "detection")
    return network_of(case), case.input_shape[-1]


@dataclass(frozen=True, slots=True)
class Archive:
    """One of ours: its file, the form that was chosen, and what the eager fp32 network answers to the images."""

    path: Path
    form: str
    answers: list[Mapping[str, Any]]


def write_ours(case: Case, directory: Path, images: list[bytes], target: ServingTarget) -> Archive:
    """Build the archive as a worker does, with the first images as golden inputs; the others it never sees."""
    spec = ServingSpec(case.input_shape, case.constants)
    module = network_of(case)
    handler = CATALOG[case.recipe].load_handler()(spec)
    with torch.inference_mode():
        answers = [dict(one) for one in handler.predict([Instance(body, {}, {}) for body in images], module)]  # type: ignore[call-overload]
    bundle = directory / f"bundle-{case.name}-{target.precision}"
    (bundle / "golden").mkdir(parents=True)
    for number, body in enumerate(images[:GOLDEN_COUNT]):
        (bundle / "golden" / f"{number:03d}.jpg").write_bytes(body)
    (bundle / "golden" / "answers.json").write_text(json.dumps(answers[:GOLDEN_COUNT]))
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, bundle / "weights.safetensors")
    document = {
        "recipe": case.recipe,
        "family": family_of(case.recipe),
        "config": dict(case.config),
        "spec": {"input_shape": case.input_shape, "constants": dict(case.constants)},
        "metrics": {},
        "step": 1,
        "versions": {},
    }
    (bundle / "bundle.json").write_text(json.dumps(document))
    path = directory / f"{case.name}-{target.precision}.mar"
    with open(os.devnull, "wb") as sink:
        built = build(BuildPlan(bundle, path, target, {"name": case.name}), FrameWriter(sink.fileno()))
    return Archive(path, built.choice.candidate.form, answers)


def write_stock(case: Case, directory: Path) -> Path:
    """Write an archive for TorchServe's own handler of the task."""
    path = directory / f"stock-{case.name}.mar"
    model = {"modelName": case.name, "modelFile": "model.py", "handler": case.stock_handler, "modelVersion": "1.0"}
    manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("model.py", case.stock_model.lstrip())
        archive.writestr("captum/__init__.py", "")
        archive.writestr("captum/attr.py", _CAPTUM.lstrip())
    return path
