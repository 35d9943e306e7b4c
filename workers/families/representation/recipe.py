"""What the representation recipes share: their images, batches, and features that labels judge."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.base import Placement
from workers.families.records import RecordSet
from workers.families.representation.config import RepresentationConfig
from workers.families.representation.data import FAMILIES, Batch, TrainBatches, judging_labels
from workers.families.shaped import Shape, ShapedImages, grey_notices
from workers.families.supervised import SupervisedRecipe, spread

ConfigT = TypeVar("ConfigT", bound=RepresentationConfig)


class RepresentationRecipe(SupervisedRecipe[ConfigT, Batch], Generic[ConfigT]):
    """A representation recipe is its network, its loss and what it shows of both; data and judgement are here."""

    is_batch_divisible = True

    def __init__(self, config: ConfigT, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self._train, held_out = (RecordSet(dataset_dir, split, families=FAMILIES) for split in ("train", "val"))
        data = config.data
        self._held_out = ShapedImages(held_out, data=data, cache_mib=data.cache_mib // 4)
        self._judged = ShapedImages(self._train, data=data, cache_mib=data.cache_mib // 4)

    @property
    def stored_shape(self) -> Shape:
        """The shape in which training images are kept."""
        return self.config.data

    @abstractmethod
    def change(self, images: Tensor) -> Tensor:
        """Change uint8 images (N, C, H, W) at random, with draws from the global generators."""

    @abstractmethod
    def draw(self, count: int) -> Tensor:
        """Return the noise of a step for so many images, from the global generators."""

    @abstractmethod
    def to_network(self, pixels: Tensor) -> Tensor:
        """Turn uint8 images into what the network sees."""

    @abstractmethod
    def features(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return what the network makes of images (N, C, H, W), (N, D)."""

    def train_batches(self) -> TrainBatches:
        data = self.config.data
        images = ShapedImages(self._train, data=self.stored_shape, cache_mib=data.cache_mib)
        return TrainBatches(
            images,
            batch_size=data.batch_size,
            seed=self.config.runtime.seed,
            change=self.change,
            draw=self.draw,
        )

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        # As bytes: a quarter of what they are as numbers.
        images = self.to_network(batch.images.to(placement.device, non_blocking=True))
        noise = batch.noise.to(placement.device, non_blocking=True)
        return Batch(images.to(memory_format=placement.memory_format), noise)

    def notices(self) -> list[str]:
        return grey_notices(self._train, self.config.data)

    def held_out(self, count: int) -> Tensor:
        """Return some held-out images, spread over the split, uint8 (N, C, H, W)."""
        return self._held_out.gather(np.asarray(spread(len(self._held_out), count)))

    def held_out_batches(self, placement: Placement) -> Iterator[Tensor]:
        """Yield all held-out images in order, as the network sees them."""
        return self._batches(self._held_out, range(len(self._held_out)), placement)

    def judged_features(
        self, network: nn.Module, placement: Placement
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """Return features and labels of training and of held-out images; None where the dataset has no classes."""
        labels = judging_labels(self._train, self._held_out.records)
        if labels is None:
            return None
        # Spread: datasets come class by class.
        known = spread(len(self._train), self.config.eval.label_images)
        asked = range(len(self._held_out))
        return (
            (self._features(network, self._judged, known, placement), labels[0][known]),
            (self._features(network, self._held_out, asked, placement), labels[1]),
        )

    def _features(
        self, network: nn.Module, images: ShapedImages, places: Sequence[int], placement: Placement
    ) -> Tensor:
        parts = []
        for batch in self._batches(images, places, placement):
            with placement.autocast():
                parts.append(self.features(network, batch).float().cpu())
        return torch.cat(parts)

    def _batches(self, images: ShapedImages, places: Sequence[int], placement: Placement) -> Iterator[Tensor]:
        size = self.config.eval.batch_size
        for start in range(0, len(places), size):
            pixels = images.gather(np.asarray(places[start : start + size]))
            yield self.to_network(pixels.to(placement.device)).to(memory_format=placement.memory_format)
