"""The .mar: a zip that TorchServe 0.12 unpacks, with equal bytes for equal contents.

Torch-free. The version in the manifest is a digest of the contents, so two archives can stand side by
side in one TorchServe exactly when they differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "MAR-INF/MANIFEST.json"
HANDLER_FILE = "trainyard_service.py"
# TorchServe looks for the one class its handler file defines, so an import alone would not do.
HANDLER_SOURCE = b'''"""Handler of this archive; the code is the installed platform's."""

from workers.serving.torchserve_entry import TorchServeEntry


class Service(TorchServeEntry):
    """What TorchServe instantiates in a backend worker."""
'''
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CREATED_ON = "01/01/1980 00:00:00"
_CHUNK_BYTES = 1 << 20
_VERSION_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """An archive as written: what the object store and the agents verify."""

    path: Path
    sha256: str
    size_bytes: int
    version: str


def write_archive(path: Path, *, members: Mapping[str, Path | bytes], model_name: str) -> ArchiveFile:
    """Write an archive of `members` plus the manifest and the handler file, atomically."""
    contents = {**members, HANDLER_FILE: HANDLER_SOURCE}
    version = _version(contents)
    contents[MANIFEST] = _manifest(model_name, version)
    temporary = path.with_name(path.name + ".tmp")
    # Stored, not deflated: weights do not compress, and every start of TorchServe unpacks them.
    with zipfile.ZipFile(temporary, "w", compression=zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            _write_member(archive, name, contents[name])
    os.replace(temporary, path)
    return ArchiveFile(path, _sha256(path), path.stat().st_size, version)


def bundle_members(directory: Path) -> dict[str, Path]:
    """Return the files of a bundle by their names inside the archive; whatever else lies there stays out."""
    files = [directory / "bundle.json", directory / "weights.safetensors", *(directory / "golden").iterdir()]
    return {path.relative_to(directory).as_posix(): path for path in files}


def _write_member(archive: zipfile.ZipFile, name: str, content: Path | bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.external_attr = 0o644 << 16
    info.create_system = 3
    if isinstance(content, bytes):
        archive.writestr(info, content)
        return
    info.file_size = content.stat().st_size
    with content.open("rb") as source, archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, _CHUNK_BYTES)


def _manifest(model_name: str, version: str) -> bytes:
    document = {
        "createdOn": _CREATED_ON,
        "runtime": "python",
        "model": {"modelName": model_name, "handler": HANDLER_FILE, "modelVersion": version},
        "archiverVersion": "0.12.0",
    }
    return json.dumps(document, indent=2).encode()


def _version(contents: Mapping[str, Path | bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(contents):
        content = contents[name]
        inner = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else _sha256(content)
        digest.update(f"{name}\0{inner}\n".encode())
    return digest.hexdigest()[:_VERSION_CHARACTERS]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
