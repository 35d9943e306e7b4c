"""Reads a dataset in canonical form, whatever its family: the index, images, masks, targets and tables.

Bytes are read in place from the tar shards with pread, one open file a read, so that a set may be
shared by threads and by forked loaders. `StoredImages` keeps decoded images up to a memory budget.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from services.core.errors import DatasetInvalid
from workers.families.images import ImageInvalid, decode_opened, open_image

IGNORED_PIXEL = 255
"""Value of a mask where nothing is to be learned."""

ANNOTATIONS = "annotations.jsonl"
HEADER = "dataset.json"
_PAIRS = "pairs.json"
_AGAIN = "import the dataset again"
# Their annotations count in stored pixels; everything else is seen the way people see it.
_AS_STORED = frozenset({"detection", "segmentation"})


@dataclass(frozen=True, slots=True)
class Span:
    """Where one encoded file lies in a shard; `member` names it in messages."""

    path: Path
    offset: int
    size_bytes: int
    member: str

    @classmethod
    def of(cls, directory: Path, entry: Mapping[str, Any]) -> Span:
        """Read `{shard, member, offset, size}` of the index."""
        return cls(directory / str(entry["shard"]), int(entry["offset"]), int(entry["size"]), str(entry["member"]))

    def read(self) -> bytes:
        """Return the encoded file.

        Raises:
            DatasetInvalid: it is not what was imported.
        """
        try:
            with self.path.open("rb", buffering=0) as shard:
                data = os.pread(shard.fileno(), self.size_bytes, self.offset)
        except OSError as err:
            raise DatasetInvalid(f"cannot read {self.path.name}: {err}; {_AGAIN}") from err
        if len(data) != self.size_bytes:
            raise DatasetInvalid(f"{self.path.name} ends inside {self.member}; {_AGAIN}")
        # What is left of many a damaged file decodes, and its name is the digest of what was imported.
        if hashlib.sha256(data).hexdigest() != PurePosixPath(self.member).stem:
            raise DatasetInvalid(f"{self.member} is damaged: its bytes are not those that were imported; {_AGAIN}")
        return data


@dataclass(frozen=True, slots=True)
class Meta:
    """What `dataset.json` says about all splits.

    A label is an index into `classes`, or into `identities` for faces; in detection it counts from 1.
    """

    family: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """The whole index of a dataset version; `entries` are the lines of `annotations.jsonl` by split."""

    meta: Meta
    entries: Mapping[str, list[dict[str, Any]]]


def read_index(directory: Path, families: tuple[str, ...]) -> Index:
    """Read the index of a dataset version; reads no image.

    Raises:
        DatasetInvalid: of none of these families, or damaged.
    """
    meta = read_meta(directory)
    if meta.family not in families:
        raise DatasetInvalid(f"this is a {meta.family} dataset; this recipe reads {' or '.join(families)}")
    entries: dict[str, list[dict[str, Any]]] = {}
    try:
        with (directory / ANNOTATIONS).open(encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                entries.setdefault(entry["split"], []).append(entry)
    except (OSError, KeyError, TypeError, ValueError) as err:
        raise damaged(ANNOTATIONS, err) from err
    if not entries:
        raise DatasetInvalid(f"{ANNOTATIONS} is empty; {_AGAIN}")
    return Index(meta, entries)


def damaged(file: str, err: Exception) -> DatasetInvalid:
    """Return what to raise where a file of the canonical form does not hold what it should."""
    return DatasetInvalid(f"{file} is damaged ({err!r}); {_AGAIN}")


def read_meta(directory: Path) -> Meta:
    """Read what `dataset.json` says about all splits.

    Raises:
        DatasetInvalid: damaged.
    """
    try:
        header = json.loads((directory / HEADER).read_text(encoding="utf-8"))
        family = str(header["family"])
        names = {key: tuple(map(str, header.get(key, ()))) for key in ("classes", "attributes", "identities")}
    except (OSError, KeyError, TypeError, ValueError) as err:
        raise damaged(HEADER, err) from err
    return Meta(family=family, **names)


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a split and its truth; sizes are of the stored pixels."""

    span: Span
    height: int
    width: int
    label: int | None
    attributes: tuple[int, ...]
    mask: Span | None
    landmarks: tuple[tuple[float, float], ...] | None = None
    """Of a face: left eye, right eye, nose, left and right corner of the mouth as seen, (x, y) in upright pixels."""
    target: Span | None = None
    is_side_by_side: bool = False
    """Whether the file holds the image in its left half and the target in its right one."""

    @property
    def member(self) -> str:
        return self.span.member


class RecordSet:
    """The images of one split with their labels, attributes, masks or targets.

    Raises:
        DatasetInvalid: when made, if the dataset is of none of `families`, is damaged or has no such split;
            when read, if an image or mask cannot be decoded.
    """

    def __init__(self, directory: Path, split: str, *, families: tuple[str, ...]) -> None:
        index = read_index(directory, families)
        if not index.entries.get(split):
            raise DatasetInvalid(f"the dataset has no image in the split '{split}'; import one that has")
        self.directory, self.split, self.meta = directory, split, index.meta
        try:
            self.records = tuple(_record(directory, entry) for entry in index.entries[split])
        except (KeyError, TypeError, ValueError) as err:
            raise damaged(ANNOTATIONS, err) from err
        self._check_labels()

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def labels(self) -> Tensor:
        """Labels of all images, int64 (N,).

        Raises:
            DatasetInvalid: the images have none.
        """
        if any(record.label is None for record in self.records):
            raise DatasetInvalid("the images have no labels; import a dataset with one folder a class")
        return torch.tensor([record.label for record in self.records], dtype=torch.int64)

    @property
    def has_labels(self) -> bool:
        return self.records[0].label is not None

    @cached_property
    def attributes(self) -> Tensor:
        """Attributes of all images, uint8 (N, A) of 0 and 1, in the order of `meta.attributes`."""
        rows = [record.attributes for record in self.records]
        return torch.tensor(rows, dtype=torch.uint8).reshape(len(rows), len(self.meta.attributes))

    @cached_property
    def index_of(self) -> Mapping[str, int]:
        """Position of each image by its member name, which pairs refer to."""
        return {record.member: n for n, record in enumerate(self.records)}

    def read(self, index: int) -> bytes:
        """Return the encoded image."""
        return self.records[index].span.read()

    def image(self, index: int, *, draft: tuple[int, int] | None = None) -> Tensor:
        """Decode an image into uint8 RGB (3, H, W), of a pair the one that is put in.

        Images with boxes or masks come in stored pixels, all others upright (EXIF). `draft` (width,
        height) lets a large JPEG be decoded at a fraction of its size that is no smaller.
        """
        record = self.records[index]
        return self._halves(record)[0] if record.is_side_by_side else self._decode(record.span, draft)

    def target(self, index: int) -> Tensor:
        """Decode what an image is to be turned into: uint8 RGB of the image's size, upright."""
        record = self.records[index]
        if record.is_side_by_side:
            return self._halves(record)[1]
        if record.target is None:
            raise DatasetInvalid(f"{record.member} has no target; import pairs of images (family 'pairs')")
        return self._decode(record.target)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Decode an image and its target, two halves of one file but once."""
        record = self.records[index]
        return self._halves(record) if record.is_side_by_side else (self.image(index), self.target(index))

    def _halves(self, record: Record) -> tuple[Tensor, Tensor]:
        whole = self._decode(record.span)
        left, right = whole.tensor_split(2, dim=2)
        if left.shape != right.shape:
            raise DatasetInvalid(f"{record.member} does not halve evenly; {_AGAIN}")
        return left, right

    def _decode(self, span: Span, draft: tuple[int, int] | None = None) -> Tensor:
        upright = self.meta.family not in _AS_STORED
        try:
            return decode_opened(open_image(span.read()), upright=upright, draft=draft)[0]
        except ImageInvalid as err:
            raise DatasetInvalid(f"{span.member}: {err}; import the dataset again without it") from err

    def mask(self, index: int) -> Tensor:
        """Decode a mask into uint8 (H, W) of class indices, `IGNORED_PIXEL` where nothing is to be learned."""
        record = self.records[index]
        if record.mask is None:
            raise DatasetInvalid(f"{record.member} has no mask; import the images with their masks")
        try:
            with Image.open(io.BytesIO(record.mask.read()), formats=("PNG",)) as picture:
                pixels = np.array(picture)
        except (OSError, SyntaxError, ValueError) as err:
            raise damaged(record.mask.member, err) from err
        if pixels.shape != (record.height, record.width) or pixels.dtype != np.uint8:
            raise DatasetInvalid(f"{record.mask.member} is not an index mask of its image's size; {_AGAIN}")
        if (unknown := pixels[(pixels >= len(self.meta.classes)) & (pixels != IGNORED_PIXEL)]).size:
            raise DatasetInvalid(f"{record.mask.member} has pixels of the unknown class {unknown[0]}; {_AGAIN}")
        return torch.from_numpy(pixels)

    def pairs(self) -> list[list[tuple[int, int, bool]]]:
        """Return the folds of verification pairs as (index, index, is the same person); empty where there are none."""
        path = self.directory / _PAIRS
        if not path.exists():
            return []
        try:
            folds = json.loads(path.read_text(encoding="utf-8"))["folds"]
            where = self.index_of
            return [[(where[one], where[other], bool(is_same)) for one, other, is_same in fold] for fold in folds]
        except (OSError, KeyError, TypeError, ValueError) as err:
            raise DatasetInvalid(f"{_PAIRS} is damaged or names images of another split ({err!r}); {_AGAIN}") from err

    def _check_labels(self) -> None:
        num_labels = len(self.meta.identities or self.meta.classes)
        for record in self.records:
            if record.label is not None and not 0 <= record.label < num_labels:
                raise DatasetInvalid(f"{record.member} has a label outside 0 to {num_labels - 1}; {_AGAIN}")
            if len(record.attributes) != len(self.meta.attributes):
                raise DatasetInvalid(f"{record.member} has {len(record.attributes)} attributes; {_AGAIN}")


def _record(directory: Path, entry: Mapping[str, Any]) -> Record:
    label, mask, landmarks = entry.get("label"), entry.get("mask"), entry.get("landmarks")
    target, is_side_by_side = entry.get("target"), entry.get("side_by_side", False)
    if not isinstance(is_side_by_side, bool):
        raise TypeError(f"side_by_side is {is_side_by_side!r}")
    return Record(
        span=Span.of(directory, entry),
        height=int(entry["height"]),
        width=int(entry["width"]),
        label=None if label is None else int(label),
        attributes=tuple(map(int, entry.get("attributes", ()))),
        mask=None if mask is None else Span.of(directory, mask),
        landmarks=None if landmarks is None else tuple((float(x), float(y)) for x, y in landmarks),
        target=None if target is None else Span.of(directory, target),
        is_side_by_side=is_side_by_side,
    )


class StoredImages:
    """Decoded uint8 images of one shape by index: the first ones stay in memory, up to a budget."""

    def __init__(self, count: int, load: Callable[[int], Tensor], *, shape: tuple[int, ...], cache_mib: int) -> None:
        num_stored = min(count, cache_mib * 2**20 // int(np.prod(shape)))
        self._load = load
        # Untouched pages cost nothing, so it grows with use; torch.empty would write them all in deterministic mode.
        self._stored = torch.from_numpy(np.empty((num_stored, *shape), dtype=np.uint8))
        self._is_stored = np.zeros(num_stored, dtype=bool)

    def gather(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """Return images by index, uint8 (N, *shape)."""
        storable = indices < len(self._is_stored)
        for index in np.unique(indices[storable][~self._is_stored[indices[storable]]]):
            self._stored[index] = self._load(int(index))
            self._is_stored[index] = True
        if storable.all():
            return self._stored[torch.from_numpy(indices)]
        return torch.stack(
            [self._stored[i] if is_in else self._load(int(i)) for i, is_in in zip(indices, storable, strict=True)]
        )


def read_points(directory: Path, split: str) -> Tensor:
    """Return the points of a split, float32 (N, D).

    Raises:
        DatasetInvalid: not a dataset of points, damaged, or without this split.
    """
    family = read_meta(directory).family
    if family != "points":
        raise DatasetInvalid(f"this is a {family} dataset; this recipe reads points")
    path = directory / f"points-{split}.npy"
    if not path.exists():
        raise DatasetInvalid(f"the dataset has no {path.name}, the points of the split '{split}'; import one that has")
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise damaged(path.name, err) from err
    if table.ndim != 2 or table.dtype != np.float32:
        raise DatasetInvalid(f"{path.name} is not a float32 table; {_AGAIN}")
    return torch.from_numpy(table)
