"""A small real recipe: a classifier of noisy 8x8 patterns with every kind of state a checkpoint must hold.

Batch normalisation, dropout, fused AdamW on the convolutions and SGD on the head, a scheduler, an average of
weights, a pool of earlier images drawn from with the global generators, and figures that come every few steps.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LinearLR, MultiStepLR, SequentialLR

from workers.engine import ema
from workers.engine.data import ShuffledBatches, seeded_rng, step_generator
from workers.families.base import (
    Golden,
    Handler,
    Instance,
    InstanceInvalid,
    Network,
    ParityReport,
    Picture,
    Placement,
    Recipe,
    ServingSpec,
    TrainState,
)
from workers.families.catalog import Entry
from workers.families.config import RecipeConfig, Section

CLASSES = 3


class ToyModel(Section):
    width: int = 8
    dropout: float = 0.25


class ToyData(Section):
    samples: int = 50
    batch_size: int = 8
    noise: float = 0.2


class ToyConfig(RecipeConfig):
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"limits": {"max_steps": 6}}}

    model: ToyModel = ToyModel()
    data: ToyData = ToyData()
    nan_at_step: int | None = None
    inf_weight_at_step: int | None = None


@dataclass(frozen=True)
class ToyBatch:
    images: Tensor
    labels: Tensor


def draw_images(labels: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Stripes across, stripes down or a checkerboard, with noise."""
    rows, columns = torch.arange(8).view(8, 1).expand(8, 8), torch.arange(8).view(1, 8).expand(8, 8)
    patterns = torch.stack([rows % 2, columns % 2, (rows + columns) % 2]).float()
    images = patterns[labels].unsqueeze(1)
    return images + noise * torch.randn(images.shape, generator=generator)


class ToySource:
    def __init__(self, config: ToyConfig) -> None:
        data = config.data
        self._seed = config.runtime.seed
        self._noise = data.noise
        self._labels = torch.arange(data.samples) % CLASSES
        self._order = ShuffledBatches(seed=self._seed, count=data.samples, batch_size=data.batch_size)
        self.batch_size = data.batch_size
        self.steps_per_epoch = self._order.steps_per_epoch

    def batch(self, step: int) -> ToyBatch:
        labels = self._labels[self._order.indices(step)]
        images = draw_images(labels, self._noise, step_generator(self._seed, step))
        with seeded_rng(self._seed, step):
            brightness = 0.1 * torch.rand(1) + 0.1 * random.random() + 0.1 * np.random.rand()
        return ToyBatch(images + brightness.float(), labels)


def toy_network(model: ToyModel) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, model.width, 3, padding=1, bias=False),
        nn.BatchNorm2d(model.width),
        nn.ReLU(),
        nn.Conv2d(model.width, model.width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(model.dropout),
        nn.Linear(16 * model.width, CLASSES),
    )


class Toy(Recipe[ToyConfig, ToyBatch]):
    metric: ClassVar[str] = "eval/accuracy"

    def train_batches(self) -> ToySource:
        return ToySource(self.config)

    def to_device(self, batch: ToyBatch, placement: Placement) -> ToyBatch:
        images = batch.images.to(placement.device, memory_format=placement.memory_format)
        return replace(batch, images=images, labels=batch.labels.to(placement.device))

    def build(self, placement: Placement) -> TrainState:
        network = toy_network(self.config.model).to(placement.device, memory_format=placement.memory_format)
        body = torch.optim.AdamW(network[:5].parameters(), lr=2e-3, fused=True)
        head = torch.optim.SGD(network[5:].parameters(), lr=0.05, momentum=0.9)
        warm = LinearLR(body, 0.1, total_iters=3)
        return TrainState(
            modules={"network": network},
            optimizers={"body": body, "head": head},
            schedulers={
                "body": SequentialLR(body, [warm, MultiStepLR(body, [4, 9])], [3]),
                "head": MultiStepLR(head, [5, 5, 8], 0.5),
            },
            ema={"network": ema.average_of(network)},
            tensors={"pool": torch.zeros(0, 1, 8, 8)},
        )

    def train_step(self, state: TrainState, batch: ToyBatch, placement: Placement) -> dict[str, Tensor]:
        network = state.modules["network"].train()
        images = self._mixed_with_pool(state, batch.images)
        with placement.autocast():
            logits = network(images)
        loss = F.cross_entropy(logits.float(), batch.labels)
        if state.step == self.config.nan_at_step:
            loss = loss * torch.nan
        for optimizer in state.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for name, optimizer in state.optimizers.items():
            optimizer.step()
            state.schedulers[name].step()
        if state.step == self.config.inf_weight_at_step:
            with torch.no_grad():
                network[0].weight[0, 0, 0, 0] = torch.inf
        ema.update(state.ema["network"], network, decay=0.9)
        scalars = {"train/loss": loss.detach(), "train/accuracy": (logits.argmax(1) == batch.labels).float().mean()}
        if state.step % 3 == 0:
            scalars["train/logits"] = logits.detach().abs().mean()
        return scalars

    def _mixed_with_pool(self, state: TrainState, images: Tensor) -> Tensor:
        pool = state.tensors["pool"]
        state.tensors["pool"] = torch.cat([pool, images[:2]])[-6:].clone()
        if len(pool) < 4:
            return images
        place = random.randrange(len(pool)) if random.random() < 0.5 else np.random.randint(len(pool))
        return images + 0.05 * pool[place]

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        average = state.ema["network"].eval()
        labels = torch.arange(30) % CLASSES
        images = draw_images(labels, 0.2, torch.Generator().manual_seed(99))
        torch.rand(7), random.random(), np.random.rand()
        with torch.inference_mode():
            accuracy = (average(images).argmax(1) == labels).float().mean()
        return {"eval/accuracy": float(accuracy)}

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        state.modules["network"].eval()
        images = draw_images(torch.arange(CLASSES), 0.2, torch.default_generator)
        return [Picture("samples", _png(images[0]))]

    def serving_module(self, state: TrainState) -> nn.Module:
        return state.ema["network"].eval()

    def serving_spec(self) -> ServingSpec:
        return ServingSpec((1, 8, 8), {"classes": ["across", "down", "checkerboard"]})

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        images = draw_images(torch.arange(count) % CLASSES, 0.1, torch.Generator().manual_seed(1))
        inputs = tuple(_png(image) for image in images)
        handler = ToyHandler(self.serving_spec())
        answers = handler.predict([Instance(body, {}, {}) for body in inputs], self.serving_module(state))
        return Golden(inputs, tuple(answer for answer in answers if not isinstance(answer, InstanceInvalid)))

    @classmethod
    def load_serving_module(cls, config: ToyConfig, spec: ServingSpec) -> nn.Module:
        return toy_network(config.model).eval()


class ToyHandler(Handler):
    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        images = torch.stack([_decode(one.body or b"") for one in instances])
        with torch.inference_mode():
            scores = torch.as_tensor(network(images)).softmax(1)
        return [{"scores": row} for row in scores.tolist()]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        largest = max(abs(a - b) for a, b in zip(expected["scores"], actual["scores"], strict=True))
        return ParityReport({"score": largest}, largest < 1e-3)


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((image[0].clamp(0, 1) * 255).to(torch.uint8).numpy()).save(buffer, "png")
    return buffer.getvalue()


def _decode(body: bytes) -> Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(body)))).float().unsqueeze(0) / 255


TOY_CATALOG = {
    "toy/patterns": Entry(
        config=f"{__name__}:ToyConfig", recipe=f"{__name__}:Toy", handler=f"{__name__}:ToyHandler", summary="Patterns."
    )
}


def toy_config(**sections: Mapping[str, Any] | int | None) -> dict[str, Any]:
    """Return a complete config; sections are merged over short, fully specified defaults."""
    defaults: dict[str, Any] = {
        "runtime": {"precision": "fp32", "channels_last": "off", "seed": 7},
        "limits": {"max_steps": 12, "checkpoint_every_steps": 4, "evaluate_every_steps": 4, "log_every_steps": 3},
    }
    for name, section in sections.items():
        defaults[name] = {**defaults.get(name, {}), **section} if isinstance(section, Mapping) else section
    return json.loads(ToyConfig.model_validate(defaults).model_dump_json())


def toy_recipe(**sections: Mapping[str, Any] | int | None) -> Toy:
    return Toy(ToyConfig.model_validate(toy_config(**sections)), Path())
