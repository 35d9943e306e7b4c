"""TorchServe's model store: one verified file per archive, named by its digest."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.agent.archive_check import ArchiveRejected, check_archive
from services.storage.port import ObjectStore


@dataclass(frozen=True, slots=True)
class Smoke:
    """An input and the answer the archive's builder got for it."""

    body: bytes
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelStore:
    """The directory TorchServe registers from."""

    directory: Path
    objects: ObjectStore

    def fetch(self, *, key: str, sha256: str) -> str:
        """Bring an archive here, verified and within limits, and return its file name. Safe to repeat.

        Raises:
            IntegrityError: the bytes are not those that were built.
            ArchiveRejected: TorchServe must not unpack it.
            StoreUnavailable, ObjectNotFound: it cannot be had now.
        """
        path = self._path(sha256)
        if not _has_digest(path, sha256):
            staged = path.with_suffix(".part")
            try:
                self.objects.get_file(key, staged, sha256=sha256)
                check_archive(staged)
                staged.rename(path)
            finally:
                staged.unlink(missing_ok=True)
        return path.name

    def smoke(self, sha256: str) -> Smoke:
        """Return the golden input and answer of an archive.

        Raises:
            ArchiveRejected: it has none.
        """
        try:
            with zipfile.ZipFile(self._path(sha256)) as archive:
                recorded = json.loads(archive.read("serving.json"))["smoke"]
                return Smoke(archive.read(recorded["input"]), recorded["answer"])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as err:
            raise ArchiveRejected("the archive has no golden answer to compare with") from err

    def note_come_up(self, sha256: str) -> None:
        """Remember, also beyond this process, that an archive gave its golden answer here."""
        self._mark(sha256).touch()

    def has_come_up(self, sha256: str) -> bool:
        return self._mark(sha256).exists()

    def sweep(self, keep: Iterable[str]) -> None:
        """Delete the files of archives not in `keep`."""
        kept = {self._path(sha256).name for sha256 in keep}
        for path in self.directory.glob("*.mar"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
                self._mark(path.stem).unlink(missing_ok=True)

    def _mark(self, sha256: str) -> Path:
        return self.directory / f"{sha256}.proven"

    def _path(self, sha256: str) -> Path:
        return self.directory / f"{sha256}.mar"


def _has_digest(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
