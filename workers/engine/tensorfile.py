"""Safetensors files written and hashed in one pass, the same bytes for the same tensors.

The library would write and then read again to hash. The layout is the library's own (aligned by falling
element size, then by name), and reading stays with the library, which refuses anything malformed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from services.core.errors import IntegrityError
from workers.engine.errors import StateUnsupported

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK_BYTES = 1 << 20

Array = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file of a checkpoint or bundle, as its manifest will list it."""

    name: str
    size_bytes: int
    sha256: str


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, check: Callable[[str, Array], None] | None = None
) -> FileDigest:
    """Write host tensors to a new file, synced to disk.

    `check` sees every piece of bits on its way out and may raise; the file is then incomplete.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))

    def pieces() -> Iterator[bytes | memoryview]:
        yield _header(names, tensors)
        for name in names:
            for piece in _pieces(tensors[name]):
                if check is not None:
                    check(name, piece)
                yield piece.data.cast("B")

    return write_bytes(path, pieces())


def write_bytes(path: Path, pieces: Iterator[bytes | memoryview]) -> FileDigest:
    """Write pieces to a new file, synced to disk, and hash them on the way."""
    sha256, size_bytes = hashlib.sha256(), 0
    with path.open("xb", buffering=0) as file:
        for piece in pieces:
            view = memoryview(piece)
            sha256.update(view)
            size_bytes += len(view)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())
    return FileDigest(path.name, size_bytes, sha256.hexdigest())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file on the host.

    Raises:
        IntegrityError: the file is cut short or is no safetensors file.
    """
    try:
        return load_file(path, device="cpu")
    except SafetensorError as err:
        raise IntegrityError(f"{path.name} is not a whole safetensors file") from err


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _header(names: list[str], tensors: Mapping[str, Tensor]) -> bytes:
    entries, offset = {}, 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _DTYPES:
            raise StateUnsupported(f"{name} has type {tensor.dtype}, which checkpoints do not hold")
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    body = json.dumps(entries, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    return struct.pack("<Q", len(body)) + body


def _pieces(tensor: Tensor) -> Iterator[Array]:
    # By way of numpy: torch would start an OpenMP pool of its own in the writer's thread.
    bits = tensor.detach().view(BITS[tensor.element_size()]).numpy()
    flat = np.ascontiguousarray(bits).reshape(-1)
    length = _CHUNK_BYTES // tensor.element_size()
    for start in range(0, flat.size, length):
        yield flat[start : start + length]
