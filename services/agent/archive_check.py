"""What an archive may look like before TorchServe unpacks it, which itself checks neither size nor names well."""

from __future__ import annotations

import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from services.core.errors import Code, PlatformError

_MANIFEST = "MAR-INF/MANIFEST.json"
_ENCRYPTED = 0x1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """Bounds of one archive."""

    members: int = 1000
    total_bytes: int = 16 * 2**30
    ratio: float = 100.0
    name_characters: int = 200
    depth: int = 8


class ArchiveRejected(PlatformError):
    """The archive breaks a limit and will not be unpacked."""

    code = Code.FAILED_PRECONDITION
    reason = "ARCHIVE_REJECTED"


def check_archive(path: Path, limits: ZipLimits | None = None) -> None:
    """Return if TorchServe may unpack the archive.

    The bytes are counted while decompressing, because the sizes in the headers may lie.

    Raises:
        ArchiveRejected: it breaks a limit, is damaged, or is no archive of a model.
    """
    limits = limits or ZipLimits()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_names(members, limits)
            _check_sizes(archive, members, path.stat().st_size, limits)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as err:
        raise ArchiveRejected(f"the archive is damaged: {err}") from err


def _check_names(members: list[zipfile.ZipInfo], limits: ZipLimits) -> None:
    if len(members) > limits.members:
        raise ArchiveRejected(f"the archive has {len(members)} members, more than {limits.members}")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ArchiveRejected("the archive has two members of one name")
    if _MANIFEST not in names:
        raise ArchiveRejected(f"the archive has no {_MANIFEST}")
    for member in members:
        path = PurePosixPath(member.filename)
        is_plain = not path.is_absolute() and ".." not in path.parts and "\\" not in member.filename
        if not is_plain or len(member.filename) > limits.name_characters or len(path.parts) > limits.depth:
            raise ArchiveRejected(f"the archive has a member with the name {member.filename[:80]!r}")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.flag_bits & _ENCRYPTED:
            raise ArchiveRejected(f"the member {member.filename[:80]!r} is no plain file")


def _check_sizes(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], packed_bytes: int, limits: ZipLimits
) -> None:
    allowed = min(limits.total_bytes, int(packed_bytes * limits.ratio))
    total = 0
    for member in members:
        with archive.open(member) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                total += len(chunk)
                if total > allowed:
                    raise ArchiveRejected(f"the archive unpacks to more than {allowed} bytes")
