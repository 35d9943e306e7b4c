"""A folder of a dataset as one tar file, with the checks that need no server."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
WEIGHTS_SUFFIX = ".safetensors"
_SKIPPED = frozenset(("__MACOSX", "Thumbs.db"))

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class PathInvalid(ValueError):
    """A local path that cannot become a dataset; the message names the file and the remedy."""


def check_image(path: Path) -> None:
    """Refuse what cannot be sent as an image.

    Raises:
        PathInvalid: no file, or one without content.
    """
    if not path.is_file():
        raise PathInvalid(f"{path} is no file; give an image")
    if not path.stat().st_size:
        raise PathInvalid(f"{path} is an empty file; give an image")


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str
    size_bytes: int


@contextmanager
def as_archive(path: Path, *, on_progress: Progress) -> Iterator[Path]:
    """Yield `path` itself where it is an archive, or a temporary tar of the folder or of the file of weights.

    Raises:
        PathInvalid: nothing there, no archive, or a folder whose files cannot be a dataset.
    """
    if not path.exists():
        raise PathInvalid(f"{path} does not exist; give a folder or an archive of a dataset")
    if path.is_file() and path.suffix.lower() != WEIGHTS_SUFFIX:
        _check_archive(path)
        yield path
        return
    files = [_check_file(path, path.parent)] if path.is_file() else list_files(path)
    with tempfile.TemporaryDirectory(prefix="trainyard-") as directory:
        archive = Path(directory) / f"{path.resolve().name or 'dataset'}.tar"
        _write_tar(archive, files, on_progress)
        yield archive


def list_files(folder: Path) -> list[_File]:
    """Return the folder's files by name, hidden ones left out, after the checks that need no server."""
    files = []
    for directory, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not _is_skipped(name))
        kept = sorted(name for name in names if not _is_skipped(name))
        files += [_check_file(Path(directory) / name, folder) for name in kept]
    if not any(_may_be_data(file.path.name.lower()) for file in files):
        raise PathInvalid(
            f"{folder} holds no image ({', '.join(sorted(_IMAGE_SUFFIXES))}), no table (.csv, .npy), no weights ({WEIGHTS_SUFFIX}) and no idx file;"
            " give the dataset's top folder"
        )
    return files


def _may_be_data(name: str) -> bool:
    return name.removesuffix(".gz").endswith((*_IMAGE_SUFFIXES, ".csv", ".npy", "ubyte", WEIGHTS_SUFFIX))


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED


def _refuse(error: OSError) -> None:
    raise PathInvalid(f"{error.filename} cannot be read: {error.strerror}; change its permissions")


def _check_file(path: Path, folder: Path) -> _File:
    name = path.relative_to(folder).as_posix()
    if not path.exists():
        raise PathInvalid(f"{name} is a link to nothing; remove it or restore its target")
    if not path.is_file():
        raise PathInvalid(f"{name} is neither a file nor a folder; remove it")
    if not os.access(path, os.R_OK):
        raise PathInvalid(f"{name} cannot be read; change its permissions")
    size = path.stat().st_size
    if size == 0 and path.suffix.lower() in _IMAGE_SUFFIXES:
        raise PathInvalid(f"{name} is an empty file; restore or remove the image")
    return _File(path, name, size)


def _check_archive(path: Path) -> None:
    if not path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise PathInvalid(f"{path.name} is no archive; give a folder or a file ending in {', '.join(ARCHIVE_SUFFIXES)}")
    if path.stat().st_size == 0:
        raise PathInvalid(f"{path.name} is an empty file; make the archive again")


def _write_tar(archive: Path, files: list[_File], on_progress: Progress) -> None:
    total, done = sum(file.size_bytes for file in files), 0
    # Images are compressed already: a plain tar costs no time and gives the same size.
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            member = tarfile.TarInfo(file.name)
            with file.path.open("rb") as source:
                member.size = os.fstat(source.fileno()).st_size
                member.mode = 0o644
                tar.addfile(member, source)
            done += member.size
            on_progress(min(done, total), total)
