"""A disk that has too little room for an archive: who is told what."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.core.errors import LimitExceeded
from services.datasets.room import check_room
from services.datasets.upload import Expected, Uploads

GIB = 2**30


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Every disk of this test, with what is free on it."""
    usage = SimpleNamespace(total=100 * GIB, free=3 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    return usage


def test_an_archive_that_does_not_fit_is_refused_with_what_it_needs_and_what_is_free(
    disk: SimpleNamespace, tmp_path: Path
) -> None:
    check_room(tmp_path, needed_bytes=2 * GIB)

    with pytest.raises(LimitExceeded, match=r"it needs 2.5 GiB and 1.0 GiB to spare, and 3.0 GiB are free") as caught:
        check_room(tmp_path, needed_bytes=5 * GIB // 2)

    assert "free space there, or import a smaller one" in str(caught.value)


def test_one_of_unknown_size_needs_the_reserve_only(disk: SimpleNamespace, tmp_path: Path) -> None:
    check_room(tmp_path)

    disk.free = GIB // 2
    with pytest.raises(LimitExceeded, match=r"it needs 1.0 GiB, and 512.0 MiB are free"):
        check_room(tmp_path)


def test_an_upload_is_refused_before_its_first_byte(disk: SimpleNamespace, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        uploads = Uploads(tmp_path / "uploads", threads, limit_bytes=10 * GIB)

        def ask(size_bytes: int) -> None:
            # It answers before anything is waited for, so no loop is needed.
            uploads.receive(Expected(size_bytes, ""), nothing()).__aenter__().send(None)

        with pytest.raises(LimitExceeded, match=r"needs 4.0 GiB and 1.0 GiB to spare, and 3.0 GiB are free"):
            ask(4 * GIB)
        with pytest.raises(LimitExceeded, match=r"the archive has 11.0 GiB; this server takes 10.0 GiB"):
            ask(11 * GIB)


async def nothing() -> AsyncIterator[bytes]:
    for chunk in ():
        yield chunk
