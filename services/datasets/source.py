"""What every importer produces: images and boxes as the source states them, before any image is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class SourceBox:
    """One object: a class index and a box, xyxy in pixels or, where `is_normalised`, in shares of the image."""

    where: str
    label: int
    x1: float
    y1: float
    x2: float
    y2: float
    is_normalised: bool = False
    is_crowd: bool = False
    is_difficult: bool = False
    area: float | None = None


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One listed image: its file, the split its source puts it in, and its boxes."""

    where: str
    path: Path
    name: str
    split: str
    boxes: tuple[SourceBox, ...]
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class SourceDataset:
    """A parsed dataset; `ignored` counts what the importer left aside, by reason, for the report."""

    format: str
    classes: tuple[str, ...]
    images: tuple[SourceImage, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
