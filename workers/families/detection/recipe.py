"""What the detection recipes share: data, the update, evaluation, samples and what serving needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.base import Golden, Instance, InstanceInvalid, Picture, Placement, Recipe, ServingSpec, TrainState
from workers.families.detection.config import DetectionConfig, Optim
from workers.families.detection.data import Batch, Record, SquareImages, TrainBatches, read_dataset
from workers.families.detection.draw import Box, draw_boxes, sheet
from workers.families.detection.evaluate import Predict, detect, evaluate
from workers.families.detection.handler import DetectionHandler
from workers.families.detection.images import FILL, MEAN, STD, decode
from workers.families.detection.network import DetectionNetwork, ServedNetwork
from workers.families.detection.postprocess import Detections, Thresholds
from workers.families.detection.schedule import learning_rate

DetectionConfigT = TypeVar("DetectionConfigT", bound=DetectionConfig)


class DetectionRecipe(Recipe[DetectionConfigT, Batch], Generic[DetectionConfigT]):
    """A detection recipe is its network and its losses; all else is here."""

    def __init__(self, config: DetectionConfigT, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self.dataset = read_dataset(dataset_dir)
        data = config.data
        self._held_out = SquareImages(self.dataset.splits["val"], size=data.image_size, cache_mib=data.cache_mib)

    @classmethod
    @abstractmethod
    def build_network(cls, config: DetectionConfigT, num_classes: int) -> DetectionNetwork:
        """Build the network with fresh weights."""

    @abstractmethod
    def losses(self, network: nn.Module, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted parts of the loss in fp32; their sum is minimised."""

    def train_batches(self) -> TrainBatches:
        return TrainBatches(
            self.dataset.splits["train"],
            data=self.config.data,
            augmentation=self.config.augment,
            seed=self.config.runtime.seed,
        )

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return batch.to(placement, self.config.augment)

    def build(self, placement: Placement) -> TrainState:
        network = self.build_network(self.config, len(self.dataset.classes))
        network.to(device=placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]
        if placement.compile:
            network.compile()
        optimizer = _optimizer(network, self.config.optim)
        return TrainState(modules={"network": network}, optimizers={"network": optimizer})

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        network, optimizer = state.modules["network"], state.optimizers["network"]
        with placement.autocast():
            raw = network(batch.images)
        parts = self.losses(network, raw, batch)
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.optim.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.config.optim.max_grad_norm)
        rate = learning_rate(
            state.step,
            peak=self.config.optim.lr,
            schedule=self.config.schedule,
            max_steps=self.config.limits.max_steps,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        scalars = {f"train/loss_{name}": part.detach() for name, part in parts.items()}
        return {"train/loss": loss.detach(), **scalars, "train/lr": torch.full((), rate, device=placement.device)}

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        with _in_eval_mode(_network(state)) as network:
            return evaluate(
                _predictor(network, placement),
                self._held_out,
                num_classes=len(self.dataset.classes),
                config=self.config.eval,
            )

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        records = self._spread(self.config.eval.num_samples)
        shown = SquareImages(records, size=self.config.data.image_size, cache_mib=0)
        with _in_eval_mode(_network(state)) as network:
            predict = _predictor(network, placement)
            found = detect(predict, shown, batch_size=self.config.eval.batch_size, thresholds=Thresholds())
        pictures = [
            draw_boxes(decode(record.read(), upright=False), truth_boxes(record) + self._found_boxes(one))
            for record, one in zip(records, found, strict=True)
        ]
        return [Picture(name="samples", png=sheet(pictures))]

    def serving_module(self, state: TrainState) -> nn.Module:
        return ServedNetwork(_network(state))

    def serving_spec(self) -> ServingSpec:
        size = self.config.data.image_size
        thresholds = {name: value for name, value in asdict(Thresholds()).items() if name != "labels"}
        constants = {
            "classes": list(self.dataset.classes),
            "thresholds": thresholds,
            "normalisation": {"mean": list(MEAN), "std": list(STD)},
            "fill": list(FILL),
        }
        return ServingSpec(input_shape=(3, size, size), constants=constants)

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        handler = DetectionHandler(self.serving_spec())
        inputs = [record.read() for record in self._spread(count)]
        exact = Placement(placement.device, autocast_dtype=None, memory_format=placement.memory_format)
        with _in_eval_mode(_network(state)) as network:
            instances = [Instance(body=data, fields={}, params={}) for data in inputs]
            answers = handler.predict(instances, _predictor(network, exact))
        good = [(data, one) for data, one in zip(inputs, answers, strict=True) if not isinstance(one, InstanceInvalid)]
        return Golden(inputs=tuple(data for data, _ in good), answers=tuple(one for _, one in good))

    @classmethod
    def load_serving_module(cls, config: DetectionConfigT, spec: ServingSpec) -> nn.Module:
        return ServedNetwork(cls.build_network(config, len(spec.constants["classes"])))

    def _found_boxes(self, found: Detections) -> list[Box]:
        rows = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
        return [
            Box(xyxy=box, label=label, name=self.dataset.classes[label - 1], score=score) for box, label, score in rows
        ]

    def _spread(self, count: int) -> list[Record]:
        records = self._held_out.records
        places = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
        return [records[place] for place in places]


def _network(state: TrainState) -> DetectionNetwork:
    network = state.modules["network"]
    assert isinstance(network, DetectionNetwork)
    return network


@contextmanager
def _in_eval_mode(network: DetectionNetwork) -> Iterator[DetectionNetwork]:
    was_training = network.training
    network.eval()
    try:
        yield network
    finally:
        network.train(was_training)


def _predictor(network: DetectionNetwork, placement: Placement) -> Predict:
    def predict(images: Tensor) -> tuple[Tensor, Tensor]:
        with placement.autocast():
            raw = network(images.to(placement.device, memory_format=placement.memory_format))
        return network.decode(raw)

    return predict


def _optimizer(network: nn.Module, config: Optim) -> torch.optim.Optimizer:
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2), fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)


def truth_boxes(record: Record) -> list[Box]:
    """Return what is annotated, to be drawn."""
    pairs = zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
    return [Box(xyxy=box, label=label, name="") for box, label in pairs]
