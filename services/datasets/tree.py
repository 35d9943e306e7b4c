"""The unpacked files of a dataset: found by name, never outside their root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
OTHER_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".tif", ".tiff", ".heic", ".avif", ".jp2", ".ppm"})
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Tree:
    """Every regular file under `root` by its relative name with forward slashes, in sorted order."""

    root: Path
    files: tuple[str, ...]
    _known: frozenset[str]

    @classmethod
    def scan(cls, directory: Path) -> Tree:
        """List a directory; a single folder that holds everything is taken as the root itself."""
        names = sorted(_walk(directory))
        root = directory
        while (top := _only_folder(names)) is not None:
            root, names = root / top, [name[len(top) + 1 :] for name in names]
        return cls(root, tuple(names), frozenset(names))

    def path(self, name: str) -> Path:
        return self.root / name

    def has(self, name: str) -> bool:
        return name in self._known

    def with_suffix(self, *suffixes: str) -> list[str]:
        return [name for name in self.files if PurePosixPath(name).suffix.lower() in suffixes]

    @property
    def images(self) -> list[str]:
        return self.with_suffix(*IMAGE_SUFFIXES)

    def find(self, name: str, folders: tuple[str, ...]) -> str | None:
        """Return the first existing `folder/name`; a name that climbs out of its folder finds nothing."""
        for folder in folders:
            candidate = normal(f"{folder}/{name}" if folder else name)
            if candidate is not None and candidate in self._known:
                return candidate
        return None


def normal(name: str) -> str | None:
    """Return a relative name without `.` parts, or None where it is absolute or climbs above the root."""
    if name.startswith("/") or "\\" in name or "\0" in name:
        return None
    kept: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not kept:
                return None
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return "/".join(kept)


def split_of(word: str) -> str | None:
    """Return train, val or test for names such as `train2017`, `instances_val` or `valid`, else None."""
    stem = word.lower().rstrip("0123456789")
    for part in reversed(stem.replace("-", "_").replace(".", "_").split("_")):
        if (split := SPLIT_WORDS.get(part.rstrip("0123456789"))) is not None:
            return split
    return None


def split_of_path(name: str) -> str | None:
    """Return the split a file's own name or its nearest folder tells."""
    path = PurePosixPath(name)
    for word in (path.stem, *reversed(path.parts[:-1])):
        if (split := split_of(word)) is not None:
            return split
    return None


def _walk(directory: Path) -> list[str]:
    names = []
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not _is_junk(name)]
        relative = Path(folder).relative_to(directory)
        names += [(relative / name).as_posix() for name in files if not _is_junk(name)]
    return names


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _only_folder(names: list[str]) -> str | None:
    """Return the one top folder of all files, unless its name means something to an importer."""
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or any("/" not in name for name in names):
        return None
    (top,) = tops
    is_meaningful = split_of(top) is not None or top.lower() in {"images", "annotations", "labels", "jpegimages"}
    return None if is_meaningful else top
