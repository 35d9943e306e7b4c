"""The one form training reads: tar shards of the original encoded images, and one JSON line an image.

Byte for byte a function of the checked dataset. Members are stored uncompressed at recorded offsets,
so a reader preads an image and never unpacks a shard. `family` in dataset.json tells what a line says
beside the image: boxes, a label, attributes, where in the `masks` shards its mask lies, or where in the
`targets` shards the image lies that it is to be turned into.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.core.errors import IntegrityError
from services.datasets.checked import CheckedDataset, CheckedImage
from services.datasets.source import SPLITS

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
ANNOTATIONS_FILE = "annotations.jsonl"
PAIRS_FILE = "pairs.json"
_HEADER_BYTES = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class _Stored:
    """One file of a shard, by the name and the bytes it has."""

    member: str
    path: Path
    name: str
    size_bytes: int


@dataclass(slots=True)
class _Shards:
    """Appends files to tars of about `limit_bytes`, every member once."""

    directory: Path
    kind: str
    limit_bytes: int
    _stack: ExitStack = field(default_factory=ExitStack)
    _tar: tarfile.TarFile | None = None
    _count: int = 0
    _placed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def place(self, file: _Stored) -> dict[str, Any]:
        """Return where the file lies: shard, member, offset and size."""
        if (known := self._placed.get(file.member)) is None:
            known = self._placed[file.member] = self._append(file)
        return known

    def _append(self, file: _Stored) -> dict[str, Any]:
        if self._tar is None or self._tar.offset >= self.limit_bytes:
            self._next()
        assert self._tar is not None
        header = tarfile.TarInfo(file.member)
        header.size, header.mode = file.size_bytes, 0o644
        offset = self._tar.offset + _HEADER_BYTES
        if file.path.stat().st_size != header.size:
            raise IntegrityError(f"{file.name} changed during the import")
        with file.path.open("rb") as source:
            self._tar.addfile(header, source)
        shard = f"{self.kind}-{self._count - 1:05d}.tar"
        return {"shard": shard, "member": file.member, "offset": offset, "size": file.size_bytes}

    def _next(self) -> None:
        self._stack.close()
        path = self.directory / f"{self.kind}-{self._count:05d}.tar"
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - the stack closes it
        self._stack.enter_context(self._tar)
        self._count += 1

    def close(self) -> None:
        self._stack.close()


def write_canonical(dataset: CheckedDataset, directory: Path, *, shard_bytes: int) -> None:
    """Write `dataset.json`, the shards and `annotations.jsonl` into an existing empty directory."""
    shards = {kind: _Shards(directory, kind, shard_bytes) for kind in ("images", "masks", "targets")}
    try:
        with (directory / ANNOTATIONS_FILE).open("w", encoding="utf-8") as lines:
            for image in _ordered(dataset):
                lines.write(_line(_record(image, dataset, shards)) + "\n")
    finally:
        for each in shards.values():
            each.close()
    if dataset.folds:
        (directory / PAIRS_FILE).write_text(_line({"folds": _folds(dataset)}) + "\n", encoding="utf-8")
    write_header(_header(dataset), directory)


def write_header(header: dict[str, Any], directory: Path) -> None:
    """Write `dataset.json`; readers of any family find the family in it."""
    (directory / DATASET_FILE).write_text(_line({"format_version": FORMAT_VERSION, **header}) + "\n", encoding="utf-8")


def _ordered(dataset: CheckedDataset) -> Iterator[CheckedImage]:
    """Yield images by split and digest: the order owes nothing to file names or archive order."""
    for split in SPLITS:
        yield from sorted(dataset.of_split(split), key=lambda image: (image.facts.sha256, image.truth_key()))


def _record(image: CheckedImage, dataset: CheckedDataset, shards: Mapping[str, _Shards]) -> dict[str, Any]:
    facts = image.facts
    place = shards["images"].place(_Stored(image.member, image.path, image.name, facts.size_bytes))
    record: dict[str, Any] = {"split": image.split, **place, "width": facts.width, "height": facts.height}
    if dataset.family == "detection":
        record |= _box_fields(image)
    if image.label is not None:
        record["label"] = image.label
        if dataset.family == "face":
            record["identity"] = dataset.classes[image.label]
    if dataset.attributes:
        record["attributes"] = list(image.attributes)
    if image.landmarks:
        record["landmarks"] = [list(point) for point in image.landmarks]
    if (mask := image.mask) is not None:
        member = f"{image.split}/{mask.sha256}.png"
        record["mask"] = shards["masks"].place(_Stored(member, mask.path, f"the mask of {image.name}", mask.size_bytes))
    if (target := image.target) is not None:
        stored = _Stored(target.member(image.split), target.path, target.name, target.facts.size_bytes)
        record["target"] = shards["targets"].place(stored)
    if image.is_side_by_side:
        record["side_by_side"] = True
    return record


def _box_fields(image: CheckedImage) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "boxes": [[box.x1, box.y1, box.x2, box.y2] for box in image.boxes],
        "labels": [box.label for box in image.boxes],
        "iscrowd": [int(box.is_crowd) for box in image.boxes],
        "area": [box.area for box in image.boxes],
    }
    if any(box.is_difficult for box in image.boxes):
        fields["difficult"] = [int(box.is_difficult) for box in image.boxes]
    return fields


def _folds(dataset: CheckedDataset) -> list[list[list[Any]]]:
    members = {image.name: image.member for image in dataset.images}
    return [[[members[one], members[other], int(same)] for one, other, same in fold] for fold in dataset.folds]


def _header(dataset: CheckedDataset) -> dict[str, Any]:
    present = [split for split in SPLITS if dataset.of_split(split)]
    is_face = dataset.family == "face"
    header: dict[str, Any] = {
        "family": dataset.family,
        "classes": [] if is_face else list(dataset.classes),
        "splits": {split: _counts(dataset, dataset.of_split(split)) for split in present},
        "source_format": dataset.format,
    }
    if is_face:
        header["identities"] = list(dataset.classes)
    if dataset.attributes:
        header["attributes"] = list(dataset.attributes)
    return header


def _counts(dataset: CheckedDataset, images: list[CheckedImage]) -> dict[str, int]:
    counts = {"images": len(images)}
    if dataset.family == "detection":
        counts["boxes"] = sum(len(image.boxes) for image in images)
    if dataset.family == "face":
        counts["identities"] = len({image.label for image in images})
    return counts


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
