"""The one form training reads: tar shards of the original encoded images, and one JSON line an image.

Byte for byte a function of the checked dataset. Members are stored uncompressed at recorded offsets,
so a reader preads an image and never unpacks a shard.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.core.errors import IntegrityError
from services.datasets.checked import CheckedDataset, CheckedImage
from services.datasets.source import SPLITS

FORMAT_VERSION = 1
FAMILY = "detection"
DATASET_FILE = "dataset.json"
ANNOTATIONS_FILE = "annotations.jsonl"
_HEADER_BYTES = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class _Location:
    """Where one image's bytes lie."""

    shard: str
    member: str
    offset: int


@dataclass(slots=True)
class _Shards:
    """Appends images to tar files of about `limit_bytes`, every distinct image once a split."""

    directory: Path
    limit_bytes: int
    _stack: ExitStack = field(default_factory=ExitStack)
    _tar: tarfile.TarFile | None = None
    _count: int = 0
    _placed: dict[str, _Location] = field(default_factory=dict)

    def place(self, image: CheckedImage) -> _Location:
        member = f"{image.split}/{image.facts.sha256}.{image.facts.extension}"
        if (known := self._placed.get(member)) is None:
            known = self._placed[member] = self._append(member, image)
        return known

    def _append(self, member: str, image: CheckedImage) -> _Location:
        if self._tar is None or self._tar.offset >= self.limit_bytes:
            self._next()
        assert self._tar is not None
        header = tarfile.TarInfo(member)
        header.size, header.mode = image.facts.size_bytes, 0o644
        location = _Location(f"images-{self._count - 1:05d}.tar", member, self._tar.offset + _HEADER_BYTES)
        if image.path.stat().st_size != header.size:
            raise IntegrityError(f"{image.name} changed during the import")
        with image.path.open("rb") as source:
            self._tar.addfile(header, source)
        return location

    def _next(self) -> None:
        self._stack.close()
        path = self.directory / f"images-{self._count:05d}.tar"
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - the stack closes it
        self._stack.enter_context(self._tar)
        self._count += 1

    def close(self) -> None:
        self._stack.close()


def write_canonical(dataset: CheckedDataset, directory: Path, *, shard_bytes: int) -> None:
    """Write `dataset.json`, the shards and `annotations.jsonl` into an existing empty directory."""
    shards = _Shards(directory, shard_bytes)
    try:
        with (directory / ANNOTATIONS_FILE).open("w", encoding="utf-8") as lines:
            for image in _ordered(dataset):
                lines.write(_line(_record(image, shards.place(image))) + "\n")
    finally:
        shards.close()
    (directory / DATASET_FILE).write_text(_line(_header(dataset)) + "\n", encoding="utf-8")


def _ordered(dataset: CheckedDataset) -> Iterator[CheckedImage]:
    """Yield images by split and digest: the order owes nothing to file names or archive order."""
    for split in SPLITS:
        yield from sorted(dataset.of_split(split), key=lambda image: (image.facts.sha256, image.boxes_key()))


def _record(image: CheckedImage, location: _Location) -> dict[str, Any]:
    record: dict[str, Any] = {
        "split": image.split,
        "shard": location.shard,
        "member": location.member,
        "offset": location.offset,
        "size": image.facts.size_bytes,
        "width": image.facts.width,
        "height": image.facts.height,
        "boxes": [[box.x1, box.y1, box.x2, box.y2] for box in image.boxes],
        "labels": [box.label for box in image.boxes],
        "iscrowd": [int(box.is_crowd) for box in image.boxes],
        "area": [box.area for box in image.boxes],
    }
    if any(box.is_difficult for box in image.boxes):
        record["difficult"] = [int(box.is_difficult) for box in image.boxes]
    return record


def _header(dataset: CheckedDataset) -> dict[str, Any]:
    present = [split for split in SPLITS if dataset.of_split(split)]
    return {
        "format_version": FORMAT_VERSION,
        "family": FAMILY,
        "classes": list(dataset.classes),
        "splits": {
            split: {
                "images": len(dataset.of_split(split)),
                "boxes": sum(len(image.boxes) for image in dataset.of_split(split)),
            }
            for split in present
        },
        "source_format": dataset.format,
    }


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
