"""Explains a trained generator: which hidden units draw an attribute, and which way in z leads to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from services.core.errors import DatasetInvalid, RequestInvalid, Violation
from workers.engine import rng
from workers.engine.data import ShuffledBatches
from workers.families.base import Golden, Picture, Placement, Recipe, ServingSpec, Source, Table, TrainState
from workers.families.gan import served
from workers.families.gan.data import FAMILIES, RealImages
from workers.families.gan.dissection import Dissection, Finding
from workers.families.gan.draw import compared, grid
from workers.families.gan.generators import Generator, build_generator
from workers.families.gan.handler import make_golden
from workers.families.gan.units_config import FindUnitsConfig
from workers.families.images import to_tanh
from workers.families.latent import draw, exact_numbers
from workers.families.records import RecordSet
from workers.families.schedule import learning_rate
from workers.families.shaped import Indices
from workers.families.supervised import in_eval_mode
from workers.families.transfer import copy_weights

_MAX_WIDTH = 256
_CELLS = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Images uint8 (N, C, H, W) until they are on the device; attributes float (N, A) of 0 and 1."""

    images: Tensor
    truth: Tensor


class AttributeNet(nn.Module):
    """Convolutions of stride 2 down to maps of at most 4 x 4, and a linear layer."""

    def __init__(self, channels: int, size: tuple[int, int], outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width, (height, across) = 16, size
        while max(height, across) > _CELLS:
            width, narrow = min(2 * width, _MAX_WIDTH), channels if not layers else width
            layers += [nn.Conv2d(narrow, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            height, across = (height + 1) // 2, (across + 1) // 2
        self.maps = nn.Sequential(*layers)
        self.head = nn.Linear(width * height * across, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, A) of images from -1 to 1."""
        logits: Tensor = self.head(self.maps(images).flatten(1))
        return logits.float()


class UnitBatches:
    """Images and their attributes as a pure function of the step."""

    def __init__(self, images: RealImages, truth: Tensor, config: FindUnitsConfig) -> None:
        self._images, self._truth = images, truth
        self._order = ShuffledBatches(
            seed=config.runtime.seed, count=len(images), batch_size=min(config.data.batch_size, len(images))
        )
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        indices: Indices = np.asarray(self._order.indices(step))
        return Batch(self._images.gather(indices), self._truth[torch.from_numpy(indices)])


class FindUnits(Recipe[FindUnitsConfig, Batch]):
    """Trains the network that sees attributes; the generator stays as it came."""

    metric = "eval/attribute_accuracy"
    search: ClassVar[type[Dissection]] = Dissection

    def __init__(self, config: FindUnitsConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self._source = config.generator.restored()
        data = self._source.data
        train, held_out = (RecordSet(dataset_dir, split, families=FAMILIES) for split in ("train", "val"))
        self._train = RealImages(train, data=data, cache_mib=config.data.cache_mib)
        self._held_out = RealImages(held_out, data=data, cache_mib=config.data.cache_mib // 4)
        self.attributes = _chosen(config, train)
        self._classes = train.meta.classes if config.generator.recipe == "gan/cgan" else ()
        self._found: tuple[int, list[Finding]] | None = None

    def train_batches(self) -> UnitBatches:
        return UnitBatches(self._train, _truth(self._train.records, self.attributes), self.config)

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        images = to_tanh(batch.images.to(placement.device, non_blocking=True))
        return Batch(images.to(memory_format=placement.memory_format), batch.truth.to(placement.device))

    def build(self, placement: Placement) -> TrainState:
        generator = self._new_generator()
        if not generator.hidden_layers():
            raise _bad("init_from", "this generator has no hidden layer to search: start from another one")
        if self.config.search.layer not in ("", *generator.hidden_layers()):
            raise _bad("config.search.layer", f"this generator has the layers {', '.join(generator.hidden_layers())}")
        generator.to(placement.device).eval().requires_grad_(False)
        network = AttributeNet(self._source.data.channels, self._source.data.image_size, len(self.attributes))
        network.to(device=placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]
        optim = self.config.optim
        optimizer = torch.optim.AdamW(network.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, fused=True)
        return TrainState(modules={"network": network, "generator": generator}, optimizers={"network": optimizer})

    def load_source(self, state: TrainState, source: Source) -> None:
        generator = state.modules["generator"]
        copy_weights(generator.state_dict(), source.part("generator"), name=source.origin.name)

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        network, optimizer = state.modules["network"], state.optimizers["network"]
        with placement.autocast():
            logits = network(batch.images)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), batch.truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        peak, schedule, last = self.config.optim.lr, self.config.schedule, self.config.limits.max_steps
        rate = learning_rate(state.step, peak=peak, schedule=schedule, max_steps=last)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        return {"train/loss": loss.detach()}

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        right = self._accuracies(state, placement)
        figures = {"eval/attribute_accuracy": float(right.mean())}
        for name, value in zip(self.attributes, right.tolist(), strict=True):
            figures[f"eval/accuracy@{name}"] = value
        for finding in self._findings(state):
            name = finding.attribute
            figures |= {
                f"eval/share@{name}": finding.share,
                f"eval/units@{name}": float(len(finding.units)),
                f"eval/kept@{name}": finding.kept,
                f"eval/kept_random@{name}": finding.kept_random,
            }
        return figures

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        """Draw samples with each attribute: as they are, without its units, without as many random ones."""
        dissection = self._dissection(state)
        generator = state.modules["generator"]
        assert isinstance(generator, Generator)
        z = draw(range(16), generator.latent_size)
        labels = torch.arange(len(z)) % len(self._classes) if self._classes else None
        pictures = [Picture(name="samples", png=grid(dissection.draw(z, labels), columns=8))]
        for finding in self._findings(state):
            count = len(finding.units)
            shown = {
                f"as generated, with {finding.attribute}": (),
                f"without its {count} units of {finding.layer}": finding.units,
                f"without {count} random units of it": finding.random_units,
            }
            rows = {caption: dissection.draw(finding.z, finding.labels, silent) for caption, silent in shown.items()}
            name = "".join(letter if letter.isalnum() else "_" for letter in finding.attribute)
            pictures.append(Picture(name=f"ablation-{name}", png=compared(rows)))
        return pictures

    def tables(self, state: TrainState, placement: Placement) -> list[Table]:
        """Return every unit's weight for every attribute."""
        rows: list[tuple[str | float, ...]] = []
        for finding in self._findings(state):
            chosen = set(finding.units)
            for unit in finding.weights.argsort(descending=True).tolist():
                weight = round(float(finding.weights[unit]), 6)
                rows.append((finding.attribute, finding.layer, unit, weight, int(unit in chosen)))
        return [Table("units", ("attribute", "layer", "unit", "weight", "is_chosen"), tuple(rows))]

    def serving_module(self, state: TrainState) -> nn.Module:
        self._findings(state)
        generator = state.modules["generator"]
        assert isinstance(generator, Generator)
        return served.ServedGenerator(generator, served.layout_of(generator))

    def serving_spec(self) -> ServingSpec:
        """Return the generator's own, with what the last `serving_module` found under the attributes' names."""
        with rng.guarded(0):
            generator = self._new_generator()
        data = self._source.data
        spec = served.serving_spec(generator, output=(data.channels, *data.image_size), classes=self._classes)
        found = self._found[1] if self._found is not None else []
        constants: dict[str, Any] = dict(spec.constants)
        constants["units"] = {
            one.attribute: {"layer": one.layer, "units": list(one.units)} for one in found if one.units
        }
        constants["directions"] = {one.attribute: exact_numbers(one.direction) for one in found}
        return ServingSpec(spec.input_shape, constants)

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        return make_golden(self.serving_module(state), self.serving_spec(), device=placement.device, count=count)

    @classmethod
    def load_serving_module(cls, config: FindUnitsConfig, spec: ServingSpec) -> nn.Module:
        generator = build_generator(config.generator.restored(), len(spec.constants["classes"]))
        return served.load_served(generator, spec)

    def _new_generator(self) -> Generator:
        return build_generator(self._source, len(self._classes))

    def _accuracies(self, state: TrainState, placement: Placement) -> Tensor:
        """Return the share of held-out images seen rightly, by attribute (A,)."""
        truth = _truth(self._held_out.records, self.attributes)
        batches = self._held_out.batches(self.config.eval.batch_size, limit=len(truth))
        with in_eval_mode(state.modules["network"]) as network, torch.inference_mode():
            seen = torch.cat([network(images.to(placement.device)).cpu() > 0 for images in batches])
        return (seen == truth.bool()).double().mean(0)

    def _dissection(self, state: TrainState) -> Dissection:
        generator = state.modules["generator"]
        assert isinstance(generator, Generator)
        generator.eval()
        network = state.modules["network"]

        def judge(images: Tensor) -> Tensor:
            with in_eval_mode(network), torch.inference_mode():
                logits: Tensor = network(images)
            return logits

        return self.search(generator, judge, self.config, device=next(generator.parameters()).device)

    def _findings(self, state: TrainState) -> list[Finding]:
        """Return what is found with these weights; evaluation, pictures and the bundle of a step share it."""
        if self._found is None or self._found[0] != state.step:
            self._found = (state.step, self._dissection(state).find(self.attributes))
        return self._found[1]


def _names(records: RecordSet) -> tuple[str, ...]:
    meta = records.meta
    names = meta.attributes or meta.classes
    if not names:
        raise DatasetInvalid(
            "the images have neither attributes nor classes; import CelebA's lists or a folder a class"
        )
    return names


def _chosen(config: FindUnitsConfig, records: RecordSet) -> tuple[str, ...]:
    names, wanted = _names(records), config.search.attributes
    if unknown := [name for name in (*wanted, *config.search.boxes) if name not in names]:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise _bad("config.search", f"the dataset has no attribute {unknown[0]!r}; it has {shown}")
    return wanted or names


def _truth(records: RecordSet, attributes: tuple[str, ...]) -> Tensor:
    """Return which attributes, or which class, images have: float (N, A) of 0 and 1."""
    names = _names(records)
    columns = torch.tensor([names.index(name) for name in attributes])
    whole = records.attributes if records.meta.attributes else functional.one_hot(records.labels, len(names))
    return whole[:, columns].float()


def _bad(field: str, text: str) -> RequestInvalid:
    return RequestInvalid(violations=[Violation(field, text)])
