"""What the detection recipes share: data, the update, evaluation, samples and what serving needs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from workers.families.base import Golden, Instance, InstanceInvalid, Picture, Placement, ServingSpec, TrainState
from workers.families.detection.config import DetectionConfig
from workers.families.detection.data import Batch, Record, SquareImages, TrainBatches, read_dataset
from workers.families.detection.draw import Box, draw_boxes, samples_page
from workers.families.detection.evaluate import Predict, detect, evaluate
from workers.families.detection.handler import DetectionHandler
from workers.families.detection.network import DetectionNetwork, ServedNetwork
from workers.families.detection.postprocess import Detections, Thresholds
from workers.families.images import MEAN, STD, decode
from workers.families.letterbox import FILL
from workers.families.pictures import png
from workers.families.supervised import SupervisedRecipe, in_eval_mode, served_network, spread

DetectionConfigT = TypeVar("DetectionConfigT", bound=DetectionConfig)


class DetectionRecipe(SupervisedRecipe[DetectionConfigT, Batch], Generic[DetectionConfigT]):
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
    def losses_of(self, network: nn.Module, raw: Any, batch: Batch, placement: Placement) -> dict[str, Tensor]:
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

    def new_network(self) -> DetectionNetwork:
        return self.build_network(self.config, len(self.dataset.classes))

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        with placement.autocast():
            raw = network(batch.images)
        return self.losses_of(network, raw, batch, placement)

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        with in_eval_mode(_network(state)) as network:
            return evaluate(
                _predictor(network, placement),
                self._held_out,
                num_classes=len(self.dataset.classes),
                config=self.config.eval,
            )

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        records = self._spread(self.config.eval.num_samples)
        shown = SquareImages(records, size=self.config.data.image_size, cache_mib=0)
        with in_eval_mode(_network(state)) as network:
            predict = _predictor(network, placement)
            found = detect(predict, shown, batch_size=self.config.eval.batch_size, thresholds=Thresholds())
        pictures = [
            draw_boxes(decode(record.read(), upright=False), truth_boxes(record) + self._found_boxes(one))
            for record, one in zip(records, found, strict=True)
        ]
        return [Picture(name="samples", png=png(samples_page(pictures)))]

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
        with in_eval_mode(_network(state)) as network:
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
        return [records[place] for place in spread(len(records), count)]


def _network(state: TrainState) -> DetectionNetwork:
    network = served_network(state)
    assert isinstance(network, DetectionNetwork)
    return network


def _predictor(network: DetectionNetwork, placement: Placement) -> Predict:
    def predict(images: Tensor) -> tuple[Tensor, Tensor]:
        with placement.autocast():
            raw = network(images.to(placement.device, memory_format=placement.memory_format))
        return network.decode(raw)

    return predict


def truth_boxes(record: Record) -> list[Box]:
    """Return what is annotated, to be drawn."""
    pairs = zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
    return [Box(xyxy=box, label=label, name="") for box, label in pairs]
