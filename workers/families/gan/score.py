"""Scores generated images against the held-out ones, in the features of the network the job names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.families.gan.config import GanConfig
from workers.families.gan.data import RealImages
from workers.families.gan.features import FeatureNet, load_feature_net
from workers.families.gan.figures import covered_classes, diversity, frechet_distance, precision_and_coverage

Drawn = Iterator[tuple[Tensor, Tensor | None]]
"""Batches of images (N, C, H, W) from -1 to 1 with the classes (N,) asked for, if any."""


VARIANCE = 1000.0
"""Features are scaled to this total variance of the held-out images, so that distances have one unit for all data:
the mean image is about that far, whatever the network and its layer."""


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of a set of generated images, without the name of the network."""

    fid: float
    figures: dict[str, float]


class Scorer:
    """The feature network and what it makes of held-out images; made once an attempt."""

    def __init__(self, config: GanConfig, train: RealImages, held_out: RealImages, device: torch.device) -> None:
        self._size, self._limit = config.eval.batch_size, config.eval.num_images
        self._device = device
        self.net: FeatureNet = load_feature_net(config.eval, train, device)
        images = list(held_out.batches(self._size, limit=self._limit))
        real = torch.cat([self.net.features(batch.to(device)) for batch in images])
        variance = float(real.double().var(0, correction=0).sum())
        self._scale = (VARIANCE / max(variance, 1e-12)) ** 0.5
        self._real = real * self._scale
        mean = torch.stack([batch.sum(0) for batch in images]).sum(0) / len(real)
        self._mean_fid = frechet_distance(self._real, self._features(mean[None]))
        self._real_diversity = diversity(self._real)
        records = held_out.records
        self._labels = records.labels[: len(self._real)] if records.has_labels else None
        self._num_classes = len(records.meta.classes)

    def named(self, figure: str) -> str:
        """Return the full name of a figure, which depends on the network."""
        return f"eval/{figure}@{self.net.name}"

    def score(self, drawn: Drawn) -> Score:
        """Return the figures of generated images.

        `fid_share` is the distance as a share of what the mean image has; `classes` counts those generated.
        """
        rows, asked = [], []
        for images, labels in drawn:
            rows.append(self._features(images))
            asked.append(labels)
        features = torch.cat(rows)
        fid = frechet_distance(self._real, features)
        precision, coverage = precision_and_coverage(self._real, features)
        figures = {
            self.named("fid"): fid,
            self.named("fid_share"): fid / max(self._mean_fid, 1e-12),
            self.named("precision"): precision,
            self.named("coverage"): coverage,
            self.named("diversity"): diversity(features) / max(self._real_diversity, 1e-12),
        }
        return Score(fid, figures | self._class_figures(features, asked))

    def classes(self, images: Tensor) -> Tensor:
        """Return the class (N,) that the network sees in images, on the host."""
        return self._classes(self._features(images))

    @property
    def knows_classes(self) -> bool:
        return self.net.head is not None

    def _features(self, images: Tensor) -> Tensor:
        scaled: Tensor = self.net.features(images.to(self._device)) * self._scale
        return scaled

    def _classes(self, features: Tensor) -> Tensor:
        return self.net.classes(features / self._scale).cpu()

    def _class_figures(self, features: Tensor, asked: list[Tensor | None]) -> dict[str, float]:
        if self.net.head is None or self._labels is None:
            return {}
        found = self._classes(features)
        figures = {"eval/classes": float(covered_classes(found, self._labels, self._num_classes))}
        if wanted := [labels.cpu() for labels in asked if labels is not None]:
            figures["eval/class_agreement"] = float((found == torch.cat(wanted)).double().mean())
        return figures
