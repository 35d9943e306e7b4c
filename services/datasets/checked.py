"""A dataset that passed every check: what the canonical form is written from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.datasets.image import ImageFacts


@dataclass(frozen=True, slots=True)
class CheckedBox:
    """A box inside its image with a positive area, xyxy in pixels; `label` counts from 1."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: int
    area: float
    is_crowd: bool
    is_difficult: bool


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """A decodable image and its boxes; `name` is the source's, for messages only."""

    split: str
    path: Path
    name: str
    facts: ImageFacts
    boxes: tuple[CheckedBox, ...]

    def boxes_key(self) -> tuple[tuple[float, float, float, float, int], ...]:
        """Order images of the same bytes, which differ only in their boxes."""
        return tuple((box.x1, box.y1, box.x2, box.y2, box.label) for box in self.boxes)


@dataclass(frozen=True, slots=True)
class CheckedDataset:
    """Everything the canonical form needs."""

    format: str
    classes: tuple[str, ...]
    images: tuple[CheckedImage, ...]

    def of_split(self, split: str) -> list[CheckedImage]:
        return [image for image in self.images if image.split == split]
