"""What every importer produces: images and their truth as the source states them, before any image is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.datasets.limits import ImportLimits
from services.datasets.problem import Problems
from services.datasets.tree import Tree

SPLITS = ("train", "val", "test")
IGNORED_PIXEL = 255
"""Value of a mask where nothing is to be learned; classes are the values below."""

IndexMask = npt.NDArray[np.uint8]
Landmarks = tuple[tuple[float, float], ...]
"""Left eye, right eye, nose, left and right corner of the mouth as seen, (x, y) in pixels; none where not known."""
Fold = tuple[tuple[str, str, bool], ...]
"""Pairs of image names, and whether both show the same person."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an importer works with: the files, the family wanted of them, and where it may write images it makes."""

    tree: Tree
    family: str
    limits: ImportLimits
    problems: Problems
    scratch: Path


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


class MaskUnusable(ValueError):
    """A mask that cannot be used; the message says why and what to do."""


class SourceMask(Protocol):
    """The class of every pixel, in whatever form the source has it."""

    @property
    def where(self) -> str: ...

    def indices(self, width: int, height: int) -> IndexMask:
        """Return class indices of shape (height, width), `IGNORED_PIXEL` where none is stated.

        Raises:
            MaskUnusable: it cannot be read or does not fit an image of this size.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceTarget:
    """The image that one is to be turned into."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One listed image: its file, the split its source puts it in, and what its family needs to know.

    `label` counts from 0, into the dataset's classes or, of faces, identities. `is_side_by_side` tells that
    the file holds the image in its left half and what it is to be turned into in its right one.
    """

    where: str
    path: Path
    name: str
    split: str
    boxes: tuple[SourceBox, ...] = ()
    width: int | None = None
    height: int | None = None
    label: int | None = None
    attributes: tuple[int, ...] = ()
    mask: SourceMask | None = None
    landmarks: Landmarks = ()
    target: SourceTarget | None = None
    is_side_by_side: bool = False


@dataclass(frozen=True, slots=True)
class SourceDataset:
    """Parsed images; `ignored` counts what the importer left aside, by reason, for the report.

    `classes` are the identities where the family is `face`. `folds` are verification pairs.
    """

    format: str
    classes: tuple[str, ...]
    images: tuple[SourceImage, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    family: str = "detection"
    attributes: tuple[str, ...] = ()
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceWeights:
    """A checked file of tensors, and how many tensors and numbers it holds."""

    format: str
    path: Path
    tensors: int
    numbers: int


@dataclass(frozen=True, slots=True)
class SourcePoints:
    """Tables of numbers by split, float32 (N, D); an empty split name is still to be divided."""

    format: str
    columns: tuple[str, ...]
    tables: Mapping[str, npt.NDArray[np.float32]]
    ignored: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceTexts:
    """Lines by split, an empty split name still to be divided; a line of pairs is its source, a tab and its target."""

    format: str
    family: str
    lines: Mapping[str, Sequence[str]]
    ignored: Mapping[str, int] = field(default_factory=dict)
