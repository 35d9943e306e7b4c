"""MNIST's own files: `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, gzipped or not.

Big-endian: magic 2051, count, rows, columns, pixels; magic 2049, count, labels. `t10k` files are the
held-out ones and become val. The pixels are stored anew as grey PNG.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.datasets.limits import GIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.source import Reading, SourceDataset, SourceImage
from services.datasets.tree import Tree, split_of

FORMAT = "mnist"
_NAME = re.compile(r"(?P<split>[a-z0-9]+)[-_.](?P<kind>images|labels)[-_.]idx(?P<rank>[13])[-_.]ubyte(\.gz)?", re.I)
_MAGIC_IMAGES, _MAGIC_LABELS = 2051, 2049
_MAX_BYTES = 2 * GIB
_MAX_SIDE = 4096

Bytes = npt.NDArray[np.uint8]


class _IdxInvalid(ValueError):
    """A file is not what its name says; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Split:
    """The two files of one split."""

    images: str
    labels: str


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds files named the way MNIST names them."""
    return any(_NAME.fullmatch(PurePosixPath(name).name) for name in tree.files)


def read(reading: Reading) -> SourceDataset:
    """Unpack every pair of files into images; what is wrong goes to the problems."""
    images: list[SourceImage] = []
    num_classes = 0
    for split, files in _splits(reading.tree, reading.problems).items():
        try:
            pixels = _read_idx(reading.tree.path(files.images), _MAGIC_IMAGES)
            labels = _read_idx(reading.tree.path(files.labels), _MAGIC_LABELS)
        except _IdxInvalid as err:
            reading.problems.add(ProblemKind.BROKEN_FILE, f"{files.images}, {files.labels}", str(err))
            continue
        if len(pixels) > reading.limits.max_members:
            text = f"holds {len(pixels)} images, the limit is {reading.limits.max_members}; split the dataset"
            reading.problems.add(ProblemKind.BROKEN_FILE, files.images, text)
            continue
        if len(pixels) != len(labels):
            text = f"has {len(labels)} labels for {len(pixels)} images of {files.images}; use files of one download"
            reading.problems.add(ProblemKind.LABEL, files.labels, text)
            continue
        num_classes = max(num_classes, int(labels.max(initial=0)) + 1)
        images += _unpack(files.images, pixels, labels, split=split, folder=reading.scratch)
    classes = tuple(str(n) for n in range(num_classes))
    return SourceDataset(FORMAT, classes, tuple(images), family=reading.family)


def _splits(tree: Tree, problems: Problems) -> dict[str, _Split]:
    found: dict[str, dict[str, str]] = {}
    for name in tree.files:
        if match := _NAME.fullmatch(PurePosixPath(name).name):
            found.setdefault(match["split"].lower(), {})[match["kind"].lower()] = name
    splits = {}
    for word, files in found.items():
        if {"images", "labels"} - set(files):
            (missing,) = {"images", "labels"} - set(files)
            text = f"the {missing} file of {word!r} is missing; add it"
            problems.add(ProblemKind.LAYOUT, next(iter(files.values())), text)
            continue
        # Published as train and t10k; the second is what results are measured on.
        split = "val" if word == "t10k" else split_of(word) or ""
        if split in splits:
            text = f"is a second {split} split; keep one of {word!r} and the other"
            problems.add(ProblemKind.SPLIT, files["images"], text)
            continue
        splits[split] = _Split(files["images"], files["labels"])
    if not found:
        text = "no file such as train-images-idx3-ubyte(.gz); add the images and labels as published"
        problems.add(ProblemKind.LAYOUT, "dataset", text)
    return splits


def _read_idx(path: Path, magic: int) -> Bytes:
    """Return images (N, rows, columns) or labels (N,).

    Raises:
        _IdxInvalid: another magic number, a length that does not fit the header, or damaged compression.
    """
    rank = 3 if magic == _MAGIC_IMAGES else 1
    body = _content(path)
    header = 4 * (rank + 1)
    if len(body) < header:
        raise _IdxInvalid("is cut short; download it again")
    found, *shape = struct.unpack(f">{rank + 1}i", body[:header])
    if found != magic:
        raise _IdxInvalid(f"begins with {found}, not {magic}: this is no idx file of its name; download it again")
    if any(not side >= 0 for side in shape) or any(side > _MAX_SIDE for side in shape[1:]) or 0 in shape[1:]:
        raise _IdxInvalid(f"announces the impossible shape {tuple(shape)}; download it again")
    count = int(np.prod(shape, dtype=object))
    if len(body) - header != count:
        raise _IdxInvalid(f"holds {len(body) - header} bytes of data, its header says {count}; download it again")
    return np.frombuffer(body, dtype=np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    with path.open("rb") as raw:
        is_packed = raw.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_packed else path.open("rb") as source:
            # The header is not believed: a bomb of a few kilobytes would fill the memory.
            body: bytes = source.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as err:
        raise _IdxInvalid(f"cannot be unpacked ({err}); download it again") from err
    if len(body) > _MAX_BYTES:
        raise _IdxInvalid(f"holds more than {_MAX_BYTES // GIB} GiB; this is no file of that kind")
    return body


def _unpack(name: str, pixels: Bytes, labels: Bytes, *, split: str, folder: Path) -> list[SourceImage]:
    images = []
    for number, (square, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / f"{split or 'all'}-{number:07d}.png"
        Image.fromarray(square).save(path, "PNG")
        where = f"{name}: image {number}"
        images.append(SourceImage(where, path, where, split, label=int(label)))
    return images
