"""Unpacks a stranger's zip, tar or tar.gz. Everything is counted while it streams; headers are not believed.

Plain files and folders come out, nothing else: no links, no devices, no name that leaves the target.
Written apart from the standard library's `extractall` because that repairs bad names silently and
knows no limit.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from services.core.errors import DatasetInvalid
from services.datasets.limits import GIB, ImportLimits
from services.datasets.problem import invalid

_CHUNK_BYTES = 1 << 20
_TAR_MAGIC_AT = 257
_ZIP_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class _Member:
    """One regular file of an archive."""

    name: str
    announced_bytes: int
    source: IO[bytes]


@dataclass(slots=True)
class _Budget:
    """What one archive may still unpack."""

    limits: ImportLimits
    archive_bytes: int
    members: int = 0
    unpacked_bytes: int = 0
    _names: set[str] = field(default_factory=set)

    def enter(self, name: str, *, is_folder: bool) -> str:
        """Count a member and return its name without `./` and doubled slashes, or refuse it."""
        self.members += 1
        if self.members > self.limits.max_members:
            raise invalid("archive", f"more than {self.limits.max_members} members; split the dataset")
        clean = _clean_name(name, self.limits)
        if not is_folder:
            if clean in self._names:
                raise invalid(name, "occurs twice in the archive; pack it again with every file once")
            self._names.add(clean)
        return clean

    def spend(self, name: str, num_bytes: int) -> None:
        """Count bytes before they are written, or refuse them."""
        self.unpacked_bytes += num_bytes
        limits = self.limits
        if self.unpacked_bytes > limits.max_total_bytes:
            raise invalid(name, f"the archive unpacks to more than {limits.max_total_bytes / GIB:g} GiB; split it")
        is_bomb = self.unpacked_bytes > self.archive_bytes * limits.max_ratio
        if is_bomb and self.unpacked_bytes > limits.ratio_floor_bytes:
            text = f"the archive unpacks to more than {limits.max_ratio} times its size; pack the encoded images as they are"
            raise invalid(name, text)


def unpack(archive: Path, directory: Path, limits: ImportLimits) -> None:
    """Unpack into `directory`, which must not exist and appears only when all went well.

    Raises:
        DatasetInvalid: the archive is none, is damaged, or holds or unpacks to what is not allowed.
    """
    part = directory.with_name(f"{directory.name}.part")
    part.mkdir()
    try:
        _unpack_members(archive, part, limits)
        part.rename(directory)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _unpack_members(archive: Path, part: Path, limits: ImportLimits) -> None:
    budget = _Budget(limits, archive.stat().st_size)
    try:
        for member in _members(archive, budget):
            _write(member, part / member.name, budget)
    except DatasetInvalid:
        raise
    except _BROKEN as err:
        raise invalid("archive", f"damaged or cut short ({err}); pack and upload it again") from err
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise
        # A member that begins before the file does; everything else of this kind is this machine's own trouble.
        raise invalid("archive", "damaged (a member lies outside of it); pack and upload it again") from err
    except RuntimeError as err:  # what zipfile raises for an encrypted member
        raise invalid("archive", f"cannot be read ({err}); pack it without a password") from err


def _members(archive: Path, budget: _Budget) -> Iterator[_Member]:
    with archive.open("rb") as source:
        head = source.read(_TAR_MAGIC_AT + 5)
    if head[:2] == b"PK":
        yield from _zip_members(archive, budget)
    elif head[:2] == b"\x1f\x8b":
        # Through gzip, not tarfile's own gzip stream, which stops after the first of several members.
        with gzip.open(archive) as inner:
            yield from _tar_members(cast("IO[bytes]", inner), budget)
    elif head[_TAR_MAGIC_AT:] == b"ustar":
        with archive.open("rb") as plain:
            yield from _tar_members(plain, budget)
    else:
        raise invalid("archive", "not a zip, tar or tar.gz file; pack the dataset's folder as one of these")


def _zip_members(archive: Path, budget: _Budget) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if "\0" in info.orig_filename:
                raise invalid(info.filename, "its name holds a NUL character; rename it")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise invalid(info.filename, "a link or device; pack regular files only")
            name = budget.enter(info.filename, is_folder=info.is_dir())
            if info.is_dir():
                continue
            if info.flag_bits & 0x1:
                raise invalid(info.filename, "encrypted; pack it without a password")
            if info.compress_type not in _ZIP_METHODS:
                raise invalid(info.filename, f"packed by method {info.compress_type}; use deflate or no compression")
            with packed.open(info) as source:
                yield _Member(name, info.file_size, source)


def _tar_members(stream: IO[bytes], budget: _Budget) -> Iterator[_Member]:
    # `r|` reads forward only and keeps no list that a stranger could grow.
    with tarfile.open(fileobj=stream, mode="r|") as packed:
        while (info := packed.next()) is not None:
            if info.issparse() or not (info.isreg() or info.isdir()):
                raise invalid(info.name, "a link, device or sparse file; pack regular files only")
            name = budget.enter(info.name, is_folder=info.isdir())
            source = packed.extractfile(info) if info.isreg() else None
            # tarfile remembers every member for random access nobody asks for here.
            cast("Any", packed).members.clear()
            if source is not None:
                yield _Member(name, info.size, source)


def _write(member: _Member, path: Path, budget: _Budget) -> None:
    written = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            while chunk := member.source.read(_CHUNK_BYTES):
                budget.spend(member.name, len(chunk))
                target.write(chunk)
                written += len(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as err:
        raise invalid(member.name, "is both a file and a folder in the archive; rename one of them") from err
    if written != member.announced_bytes:
        raise invalid(member.name, "is shorter than the archive says; pack and upload it again")


def _clean_name(name: str, limits: ImportLimits) -> str:
    if fault := _name_fault(name):
        raise invalid(name, f"{fault}; pack the folder with relative names inside it")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if any(len(part.encode()) > limits.max_name_bytes for part in parts) or len(name.encode()) > limits.max_path_bytes:
        raise invalid(name, f"its name is too long (at most {limits.max_name_bytes} bytes a part); shorten it")
    if len(parts) > limits.max_depth:
        raise invalid(name, f"lies more than {limits.max_depth} folders deep; pack a flatter tree")
    return "/".join(parts)


def _name_fault(name: str) -> str | None:
    if name.startswith("/") or name[1:2] == ":":
        return "its name is absolute"
    if ".." in name.split("/"):
        return "its name leaves the archive's folder"
    if "\\" in name:
        return "its name holds a backslash"
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in name):
        return "its name holds control characters or is not UTF-8"
    return None
