"""A folder of a dataset as one tar file, with the checks that need no server."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))
_TEXT_SUFFIXES = (".src", ".tgt", ".tsv", ".txt")
SINGLE_SUFFIXES = (".safetensors", ".tsv", ".txt")
"""Of files that are a dataset by themselves: weights, a text and pairs of texts."""
_MOST_PROBLEMS = 20
_SKIPPED = frozenset(("__MACOSX", "Thumbs.db"))

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class PathInvalid(ValueError):
    """A local path that cannot become a dataset; the message names each file and the remedy."""


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
    """Yield `path` itself where it is an archive, or a temporary tar of the folder or of the single file.

    Raises:
        PathInvalid: nothing there, no archive, or a folder whose files cannot be a dataset.
    """
    if not path.exists():
        raise PathInvalid(f"{path} does not exist; give a folder or an archive of a dataset")
    if path.is_file() and path.suffix.lower() not in SINGLE_SUFFIXES:
        _check_archive(path)
        yield path
        return
    files = _list_file(path) if path.is_file() else list_files(path)
    with tempfile.TemporaryDirectory(prefix="trainyard-") as directory:
        archive = Path(directory) / f"{path.resolve().name or 'dataset'}.tar"
        _write_tar(archive, files, on_progress)
        yield archive


def list_files(folder: Path) -> list[_File]:
    """Return the folder's files by name, hidden ones left out, after the checks that need no server.

    Raises:
        PathInvalid: files that cannot be packed, or none that can be a dataset's.
    """
    problems: list[str] = []
    paths = list(_walk(folder, problems))
    problems += [problem for path in paths if (problem := _problem(path, _name(path, folder)))]
    if problems:
        raise PathInvalid(_listed(problems))
    files = [_File(path, _name(path, folder), path.stat().st_size) for path in paths]
    if not any(_may_be_data(file.path.name.lower()) for file in files):
        raise PathInvalid(
            f"{folder} holds no image ({', '.join(sorted(_IMAGE_SUFFIXES))}), no table (.csv, .npy), no text"
            f" ({', '.join(_TEXT_SUFFIXES)}), no weights (.safetensors) and no idx file; give the dataset's top folder"
        )
    return files


def empty_folders(folder: Path) -> list[str]:
    """Return the folders below `folder` of which no file is packed, without those inside of one of them."""
    filled = {parent for path in _walk(folder, []) for parent in path.parents}
    below = {path for path in folder.rglob("*") if path.is_dir() and path not in filled}
    return [
        _name(path, folder)
        for path in sorted(below)
        if path.parent not in below and not any(map(_is_skipped, path.relative_to(folder).parts))
    ]


def _list_file(path: Path) -> list[_File]:
    if problem := _problem(path, path.name):
        raise PathInvalid(problem)
    return [_File(path, path.name, path.stat().st_size)]


def _walk(folder: Path, problems: list[str]) -> Iterator[Path]:
    """Yield the files to pack by name; folders that cannot be read are added to the problems."""

    def refuse(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be read: {error.strerror}; change its permissions")

    for directory, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not _is_skipped(name))
        yield from (Path(directory) / name for name in sorted(names) if not _is_skipped(name))


def _listed(problems: Sequence[str]) -> str:
    """Return one problem as it is, several one a line, and no more than a person reads."""
    if len(problems) == 1:
        return problems[0]
    more = len(problems) - _MOST_PROBLEMS
    lines = [f"{len(problems)} files cannot be packed:", *problems[:_MOST_PROBLEMS]]
    return "\n  ".join([*lines, f"and {more} more"] if more > 0 else lines)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _may_be_data(name: str) -> bool:
    return name.removesuffix(".gz").endswith(
        (*_IMAGE_SUFFIXES, *_TEXT_SUFFIXES, ".csv", ".npy", "ubyte", ".safetensors")
    )


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED


def _problem(path: Path, name: str) -> str:
    """Return why a file cannot be packed; empty where it can."""
    if not path.exists():
        return f"{name} is a link to nothing; remove it or restore its target"
    if not path.is_file():
        return f"{name} is neither a file nor a folder; remove it"
    if not os.access(path, os.R_OK):
        return f"{name} cannot be read; change its permissions"
    if path.suffix.lower() in _IMAGE_SUFFIXES and not path.stat().st_size:
        return f"{name} is an empty file; restore or remove the image"
    return ""


def _check_archive(path: Path) -> None:
    if not path.name.lower().endswith(ARCHIVE_SUFFIXES):
        known = ", ".join((*ARCHIVE_SUFFIXES, *SINGLE_SUFFIXES))
        raise PathInvalid(
            f"{path.name} is no archive and no dataset by itself; give the folder that it is in, or a file ending in {known}"
        )
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
