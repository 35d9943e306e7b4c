"""A tiny real family for tests of serving: names the dominant colour of an image with a small convolutional net."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import save_file
from torch import Tensor, nn

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.catalog import Entry
from workers.families.config import RecipeConfig

SIDE = 64
MEAN, STD = 0.5, 0.25
CLASSES = ["red", "green", "blue"]
CATALOG = {
    "toy/colour": Entry(
        config=f"{__name__}:ToyConfig",
        recipe=f"{__name__}:ToyRecipe",
        handler=f"{__name__}:ToyHandler",
        summary="Names the dominant colour.",
    )
}


class ToyConfig(RecipeConfig):
    """Width of the network."""

    width: int = 8


class ToyNetwork(nn.Module):
    """Means of the channels after two convolutions that keep them apart, plus a little texture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.second(torch.relu(self.first(x)))
        return (x + 0.1 * self.norm(mixed)).mean((2, 3)) * 4


class ToyRecipe:
    """Only what serving asks of a recipe."""

    @classmethod
    def load_serving_module(cls, config: ToyConfig, spec: ServingSpec) -> nn.Module:
        return ToyNetwork(config.width)


class ToyHandler(Handler):
    """Answers `{"label", "scores"}`; the normalisation comes with the bundle."""

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        prepared = [self._prepare(instance) for instance in instances]
        good = [item for item in prepared if isinstance(item, Tensor)]
        scores = iter(network(torch.stack(good)).softmax(1).tolist() if good else [])
        return [item if isinstance(item, InstanceInvalid) else self._describe(next(scores)) for item in prepared]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        largest = max(abs(a - b) for a, b in zip(expected["scores"], actual["scores"], strict=True))
        return ParityReport({"scores": largest}, largest <= 0.01)

    def _prepare(self, instance: Instance) -> Tensor | InstanceInvalid:
        if instance.params.get("explode"):
            raise RuntimeError("asked to explode")
        if instance.body is None:
            return InstanceInvalid("no image")
        try:
            picture = Image.open(io.BytesIO(instance.body), formats=["PNG", "JPEG"]).convert("RGB")
        except (UnidentifiedImageError, OSError):
            return InstanceInvalid("the image cannot be decoded: send PNG or JPEG")
        pixels = np.asarray(picture.resize((SIDE, SIDE)), dtype=np.float32) / 255
        constants = self.spec.constants
        return torch.from_numpy((pixels - constants["mean"]) / constants["std"]).permute(2, 0, 1)

    def _describe(self, scores: list[float]) -> Mapping[str, Any]:
        return {"label": CLASSES[scores.index(max(scores))], "scores": [round(score, 5) for score in scores]}


def colour_png(seed: int) -> bytes:
    """Return a noisy image in which channel `seed % 3` dominates."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 120, (80, 100, 3), dtype=np.uint8)
    pixels[:, :, seed % 3] += 60
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_toy_bundle(directory: Path, *, seed: int = 0, std: float = STD, width: int = 8) -> Path:
    """Write a bundle as training does; its golden answers always hold for the right normalisation.

    Another `std` makes a bundle whose handler normalises wrongly, which the parity gate must catch.
    """
    torch.manual_seed(seed)
    network = ToyNetwork(width).eval()
    handler = ToyHandler(ServingSpec((3, SIDE, SIDE), {"mean": MEAN, "std": STD, "classes": CLASSES}))
    inputs = [colour_png(number) for number in range(4)]
    with torch.inference_mode():
        answers = handler.predict([Instance(body=body, fields={}, params={}) for body in inputs], network)
    golden = directory / "golden"
    golden.mkdir(parents=True)
    for number, body in enumerate(inputs):
        (golden / f"{number:03d}.png").write_bytes(body)
    (golden / "answers.json").write_text(json.dumps(answers))
    save_file(network.state_dict(), directory / "weights.safetensors")
    spec = {"input_shape": [3, SIDE, SIDE], "constants": {"mean": MEAN, "std": std, "classes": CLASSES}}
    document = {"recipe": "toy/colour", "family": "toy", "config": {"width": width}, "spec": spec, "metrics": {}}
    (directory / "bundle.json").write_text(json.dumps({**document, "step": 1, "versions": {}}))
    return directory
