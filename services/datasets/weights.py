"""Weights trained elsewhere, for jobs to start from: one safetensors file, whatever its name.

The layout is that of https://huggingface.co/docs/safetensors: eight bytes of length, a JSON header, the tensors.
Pickled files are refused by name: reading them runs code.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.datasets.canonical import write_header
from services.datasets.limits import MIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.report import Report
from services.datasets.source import Reading, SourceWeights
from services.datasets.tree import Tree

FORMAT, FAMILY = "safetensors", "weights"
FILE = "weights.safetensors"
"""What the file is called in the canonical form."""
SUFFIX = ".safetensors"
_PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
_REMEDY = "save the state dict with safetensors.torch.save_file"
_MAX_HEADER_BYTES = 100 * MIB
_PIECE_BYTES = 16 * MIB
_FLOATS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    # Bits of the exponent: all of them are set in what is not finite.
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class _FileInvalid(ValueError):
    """A file that cannot be used; the message says why and what to do."""


class _Entry(BaseModel):
    """One tensor, as the header describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dtype: str
    shape: list[int] = Field(max_length=16)
    data_offsets: list[int] = Field(min_length=2, max_length=2)


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    numbers: int
    begin: int
    end: int


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds weights and no images."""
    return not tree.images and bool(tree.with_suffix(SUFFIX, *_PICKLED))


def read(reading: Reading) -> SourceWeights:
    """Find and check the file; what is wrong goes to the problems."""
    found, pickled = reading.tree.with_suffix(SUFFIX), reading.tree.with_suffix(*_PICKLED)
    if len(found) != 1:
        where = found[1] if found else pickled[0] if pickled else "dataset"
        text = (
            f"{len(found)} {SUFFIX} files; give one with all tensors"
            if found
            else f"no {SUFFIX} file, and reading pickled weights runs code: load it where it was made and {_REMEDY}"
        )
        reading.problems.add(ProblemKind.WEIGHTS, where, text)
        return SourceWeights(FORMAT, Path(), 0, 0)
    path = reading.tree.path(found[0])
    try:
        tensors = _check(path)
    except _FileInvalid as err:
        reading.problems.add(ProblemKind.WEIGHTS, found[0], str(err))
        tensors = []
    return SourceWeights(FORMAT, path, len(tensors), sum(each.numbers for each in tensors))


def write_weights(source: SourceWeights, out: Path, problems: Problems) -> Report:
    """Write the canonical form: the file as it came.

    Raises:
        DatasetInvalid: with everything found wrong.
    """
    problems.raise_if_any()
    shutil.copyfile(source.path, out / FILE)
    header = {"family": FAMILY, "classes": [], "splits": {}, "source_format": FORMAT}
    write_header(header | {"tensors": source.tensors, "numbers": source.numbers}, out)
    notes = [f"{source.tensors} tensors of {source.numbers} numbers; jobs start from them with init_from."]
    return Report(format=FORMAT, family=FAMILY, splits={}, notes=notes)


def _check(path: Path) -> list[_Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise _FileInvalid(f"not a safetensors file, or cut short: {_REMEDY} again")
        tensors = _tensors(file.read(length))
    _check_places(tensors, size - 8 - length)
    for tensor in tensors:
        if tensor.dtype in _FLOATS:
            _check_finite(path, tensor, 8 + length)
    return tensors


def _tensors(header: bytes) -> list[_Tensor]:
    """Return the tensors in the order of their bytes."""
    try:
        document = json.loads(header)
        if not isinstance(document, dict):
            raise _FileInvalid(f"its header is no object; {_REMEDY} again")
        document.pop("__metadata__", None)
        entries = {name: _Entry.model_validate(value) for name, value in document.items()}
    except (ValueError, RecursionError) as err:
        if isinstance(err, _FileInvalid):
            raise
        said = err.errors()[0]["msg"] if isinstance(err, ValidationError) else err
        raise _FileInvalid(f"its header cannot be read ({said}); {_REMEDY} again") from err
    if not entries:
        raise _FileInvalid(f"holds no tensor; {_REMEDY}")
    tensors = [_tensor(name, entry) for name, entry in entries.items()]
    return sorted(tensors, key=lambda each: (each.begin, each.end))


def _tensor(name: str, entry: _Entry) -> _Tensor:
    if entry.dtype not in _SIZES:
        raise _FileInvalid(f"{name} is of type {entry.dtype}; save it as one of {', '.join(_SIZES)}")
    numbers = math.prod(entry.shape)
    begin, end = entry.data_offsets
    if min(entry.shape, default=0) < 0 or end - begin != numbers * _SIZES[entry.dtype]:
        raise _FileInvalid(f"{name} of shape {entry.shape} does not take {end - begin} bytes; {_REMEDY} again")
    return _Tensor(name, entry.dtype, numbers, begin, end)


def _check_places(tensors: list[_Tensor], size_bytes: int) -> None:
    """Tensors follow one another without gap or overlap, to the end of the file."""
    edges = [(0, tensors[0].begin), *((one.end, other.begin) for one, other in pairwise(tensors))]
    if any(end != begin for end, begin in (*edges, (tensors[-1].end, size_bytes))):
        raise _FileInvalid(f"its tensors do not fill its {size_bytes} bytes one after another; {_REMEDY} again")


def _check_finite(path: Path, tensor: _Tensor, start: int) -> None:
    kind, exponent = _FLOATS[tensor.dtype]
    for piece in _pieces(path, start + tensor.begin, start + tensor.end):
        bits = piece.view(kind)
        if ((bits & kind(exponent)) == exponent).any():
            raise _FileInvalid(f"{tensor.name} holds values that are not finite; give weights that are")


def _pieces(path: Path, begin: int, end: int) -> Iterator[npt.NDArray[np.uint8]]:
    with path.open("rb") as file:
        file.seek(begin)
        while begin < end:
            piece = np.frombuffer(file.read(min(_PIECE_BYTES, end - begin)), dtype=np.uint8)
            begin += len(piece)
            yield piece
