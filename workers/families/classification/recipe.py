"""What the classification recipes share: data, the loss, evaluation, samples and what serving needs."""

from __future__ import annotations

import base64
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from services.core.errors import RequestInvalid, Violation
from workers.families.base import (
    Golden,
    Instance,
    InstanceInvalid,
    Network,
    Picture,
    Placement,
    ServingSpec,
    TrainState,
)
from workers.families.classification.augment import Exchange, exchange_moments
from workers.families.classification.config import ClassificationConfig
from workers.families.classification.data import FAMILIES, Batch, Squares, TrainBatches
from workers.families.classification.draw import captioned, confusion_picture
from workers.families.classification.figures import confusion, figures
from workers.families.classification.handler import ClassificationHandler
from workers.families.classification.network import Classifier, NamedMaps, ServedNetwork
from workers.families.classification.squares import central, to_input
from workers.families.images import MEAN, STD
from workers.families.pictures import png, sheet
from workers.families.records import RecordSet
from workers.families.supervised import SupervisedRecipe, in_eval_mode, served_network, spread

_GOLDEN_EMBEDDINGS = 2
"""How many of the golden inputs ask for their embedding, too."""

ClassificationConfigT = TypeVar("ClassificationConfigT", bound=ClassificationConfig)


class ClassificationRecipe(SupervisedRecipe[ClassificationConfigT, Batch], Generic[ClassificationConfigT]):
    """A classification recipe is its network; all else is here."""

    metric = "eval/accuracy"

    def __init__(self, config: ClassificationConfigT, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self.is_batch_divisible = config.augment.moex == 0
        data = config.data
        self._train = RecordSet(dataset_dir, "train", families=FAMILIES)
        held_out = RecordSet(dataset_dir, "val", families=FAMILIES)
        self._held_out = Squares(held_out, data=data, cache_mib=data.cache_mib // 4)
        self.classes = self._train.meta.classes

    @classmethod
    @abstractmethod
    def build_network(cls, config: ClassificationConfigT, num_classes: int) -> Classifier:
        """Build the network with fresh weights."""

    def new_network(self) -> Classifier:
        network = self.build_network(self.config, len(self.classes))
        if self.config.augment.moex > 0:
            self._try_exchange(network)
        return network

    def train_batches(self) -> TrainBatches:
        squares = Squares(self._train, data=self.config.data, cache_mib=self.config.data.cache_mib)
        return TrainBatches(squares, self.config, num_classes=len(self.classes))

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return batch.to(placement)

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        with placement.autocast(), self._exchanging(network, batch.exchange):
            logits = network(batch.images)
        return {"classes": self._loss(logits.float(), batch)}

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        with in_eval_mode(served_network(state)) as network:
            scores = self._scores(network, placement, range(len(self._held_out)))
        return figures(scores, self._held_out.records.labels)

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        labels = self._held_out.records.labels
        places = spread(len(self._held_out), self.config.eval.num_samples)
        with in_eval_mode(served_network(state)) as network:
            found = self._scores(network, placement, range(len(self._held_out))).argmax(1)
        shown = [self._shown(place, int(found[place]), int(labels[place])) for place in places]
        counts = confusion(found, labels, len(self.classes))
        return [
            Picture(name="samples", png=sheet(shown, columns=4)),
            Picture(name="confusion", png=png(confusion_picture(counts, self.classes))),
        ]

    def serving_module(self, state: TrainState) -> nn.Module:
        return ServedNetwork(_classifier(state))

    def serving_spec(self) -> ServingSpec:
        data = self.config.data
        constants = {
            "classes": list(self.classes),
            "stored_size": data.stored_size,
            "scores": "softmax" if self.config.loss.name == "ce" else "sigmoid",
            "normalisation": {"mean": list(MEAN), "std": list(STD)} if data.channels == 3 else None,
        }
        return ServingSpec(input_shape=(data.channels, data.image_size, data.image_size), constants=constants)

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        handler = ClassificationHandler(self.serving_spec())
        exact = Placement(placement.device, autocast_dtype=None, memory_format=placement.memory_format)
        images = [self._held_out.records.read(place) for place in spread(len(self._held_out), count)]
        # The first: those are what a serving process is asked when it starts.
        wishes = [{"embedding": True} if place < _GOLDEN_EMBEDDINGS else {} for place in range(len(images))]
        with in_eval_mode(_classifier(state)) as network:
            instances = [Instance(data, {}, wish) for data, wish in zip(images, wishes, strict=True)]
            answers = handler.predict(instances, _placed(ServedNetwork(network), exact))
        inputs = [_request(data, wish) if wish else data for data, wish in zip(images, wishes, strict=True)]
        good = [(data, one) for data, one in zip(inputs, answers, strict=True) if not isinstance(one, InstanceInvalid)]
        return Golden(inputs=tuple(data for data, _ in good), answers=tuple(one for _, one in good))

    @classmethod
    def load_serving_module(cls, config: ClassificationConfigT, spec: ServingSpec) -> nn.Module:
        return ServedNetwork(cls.build_network(config, len(spec.constants["classes"])))

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        loss = self._against(logits, batch.targets)
        if batch.exchange is None:
            return loss
        other = self._against(logits, batch.targets[batch.exchange.partner])
        return batch.exchange.weight * loss + (1 - batch.exchange.weight) * other

    def _against(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.config.loss.name == "bce":
            return functional.binary_cross_entropy_with_logits(logits, targets)
        return functional.cross_entropy(logits, targets, label_smoothing=self.config.loss.label_smoothing)

    @contextmanager
    def _exchanging(self, network: nn.Module, exchange: Exchange | None) -> Iterator[None]:
        if exchange is None:
            yield
            return
        layer = _layer(network, self.config.augment.moex_layer)
        hook = layer.register_forward_hook(lambda _module, _inputs, maps: exchange_moments(maps, exchange.partner))
        try:
            yield
        finally:
            hook.remove()

    def _try_exchange(self, network: Classifier) -> None:
        """Raise RequestInvalid now rather than at the first step that exchanges moments."""
        data = self.config.data
        image = torch.zeros(1, data.channels, data.image_size, data.image_size)
        seen: list[object] = []
        hook = _layer(network, self.config.augment.moex_layer).register_forward_hook(
            lambda _module, _inputs, maps: seen.append(maps)
        )
        try:
            with in_eval_mode(network), torch.no_grad():
                network(image)
        finally:
            hook.remove()
        if not (seen and isinstance(seen[0], Tensor) and seen[0].ndim == 4):
            text = f"{self.config.augment.moex_layer!r} gives no feature maps (N, C, H, W); choose another module"
            raise RequestInvalid(violations=[Violation("config.augment.moex_layer", text)])

    def _scores(self, network: nn.Module, placement: Placement, places: range) -> Tensor:
        data, size = self.config.data, self.config.eval.batch_size
        rows = []
        with torch.inference_mode():
            for start in range(0, len(places), size):
                squares = self._held_out.gather(np.asarray(places[start : start + size]))
                logits = _placed(network, placement)(to_input(central(squares, data).float() / 255))
                assert isinstance(logits, Tensor)
                rows.append(logits.softmax(1) if self.config.loss.name == "ce" else logits.sigmoid())
        return torch.cat(rows).cpu()

    def _shown(self, place: int, found: int, label: int) -> Any:
        name = self.classes[found]
        text = name if found == label else f"{name}, not {self.classes[label]}"
        return captioned(self._held_out.records.image(place), text, is_right=found == label)


def _classifier(state: TrainState) -> Classifier:
    network = served_network(state)
    assert isinstance(network, Classifier)
    return network


def _request(image: bytes, params: Mapping[str, Any]) -> bytes:
    instance = {"image": {"b64": base64.b64encode(image).decode()}}
    return json.dumps({"instances": [instance], "params": params}).encode()


def _placed(network: nn.Module, placement: Placement) -> Network:
    def predict(images: Tensor) -> Tensor | tuple[Tensor, ...]:
        with placement.autocast():
            out = network(images.to(placement.device, memory_format=placement.memory_format))
        return tuple(one.float() for one in out) if isinstance(out, tuple) else out.float()

    return predict


def _layer(network: nn.Module, name: str) -> nn.Module:
    modules = dict(_named_modules(network))
    for path, module in modules.items():
        if path == name or path.endswith(f".{name}"):
            return module
    names = ", ".join(path for path in modules if path and path.count(".") < 3)[:400]
    text = f"the network has no module {name!r}; it has {names}"
    raise RequestInvalid(violations=[Violation("config.augment.moex_layer", text)])


def _named_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules by their paths; those of `NamedMaps` by the names that they have in their library, too."""
    for path, module in network.named_modules():
        yield path, module
        if isinstance(module, NamedMaps):
            yield from ((f"{path}.{name}", part) for name, part in zip(module.names, module, strict=True))
