"""A dataset that passed every check: what the canonical form is written from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.datasets.image import ImageFacts
from services.datasets.source import Fold, Landmarks


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
class CheckedMask:
    """An 8-bit PNG of class indices; `pixels` counts them by class, those to ignore last."""

    path: Path
    sha256: str
    size_bytes: int
    pixels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CheckedTarget:
    """A decodable image that another is to be turned into, seen upright as large as that one."""

    path: Path
    name: str
    facts: ImageFacts

    def member(self, split: str) -> str:
        """The name in its shard."""
        return f"{split}/{self.facts.sha256}.{self.facts.extension}"


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """A decodable image and its truth; `name` is the source's, for messages only.

    `label` counts from 0, into the dataset's classes or, of faces, identities.
    """

    split: str
    path: Path
    name: str
    facts: ImageFacts
    boxes: tuple[CheckedBox, ...] = ()
    label: int | None = None
    attributes: tuple[int, ...] = ()
    mask: CheckedMask | None = None
    landmarks: Landmarks = ()
    target: CheckedTarget | None = None
    is_side_by_side: bool = False

    def truth_key(self) -> tuple[Any, ...]:
        """Order images of the same bytes, which differ only in their truth."""
        boxes = tuple((box.x1, box.y1, box.x2, box.y2, box.label) for box in self.boxes)
        label = -1 if self.label is None else self.label
        mask = self.mask.sha256 if self.mask else ""
        return boxes, label, self.attributes, mask, self.target.facts.sha256 if self.target else ""

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of everything it shows."""
        return (self.facts.sha256,) if self.target is None else (self.facts.sha256, self.target.facts.sha256)

    @property
    def size_bytes(self) -> int:
        """Bytes of everything it shows."""
        return self.facts.size_bytes + (self.target.facts.size_bytes if self.target else 0)

    @property
    def member(self) -> str:
        """The image's name in its shard; the same bytes twice in a split are one member."""
        return f"{self.split}/{self.facts.sha256}.{self.facts.extension}"


@dataclass(frozen=True, slots=True)
class CheckedDataset:
    """Everything the canonical form needs; `classes` are the identities where the family is `face`."""

    format: str
    family: str
    classes: tuple[str, ...]
    images: tuple[CheckedImage, ...]
    attributes: tuple[str, ...] = ()
    folds: tuple[Fold, ...] = ()

    def of_split(self, split: str) -> list[CheckedImage]:
        return [image for image in self.images if image.split == split]
