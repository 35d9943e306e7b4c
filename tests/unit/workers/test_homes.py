"""A worker's home: taken by one, and never one that a sweep has removed."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from services.core.lock_file import lock_file
from tests.stack.platform import wait_until
from workers.sweep import LOCK_NAME, HomeTaken, remove_home, take_home


def test_a_home_has_one_worker_at_a_time(tmp_path: Path) -> None:
    home = tmp_path / "a"

    with take_home(home), pytest.raises(HomeTaken, match="TRAINYARD_WORKER_ID"):
        take_home(home)
    take_home(home).close()


def test_a_worker_that_waits_for_a_sweep_gets_a_home_that_exists(tmp_path: Path) -> None:
    home = tmp_path / "a"
    sweeping = take_home(home)
    taken: list[IO[bytes]] = []
    starting = threading.Thread(target=lambda: taken.append(take_home(home, patience_seconds=20)))
    starting.start()

    remove_home(home)
    sweeping.close()
    starting.join()

    assert (home / LOCK_NAME).exists()
    with pytest.raises(HomeTaken):
        take_home(home)
    taken[0].close()


def test_a_home_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    home = tmp_path / "a"
    with take_home(home):
        (home / "attempts" / "j-1").mkdir(parents=True)
        (home / "note").write_text("left")

        remove_home(home)

    assert not home.exists()


def test_what_cannot_be_removed_fails_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "a"

    def refuse(path: Path) -> None:
        raise PermissionError(path)

    with take_home(home):
        (home / "note").write_text("of another user")
        monkeypatch.setattr(Path, "unlink", refuse)

        remove_home(home)

    assert home.exists()


def test_a_home_that_is_taken_again_while_it_is_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "a"
    sweeping, remove, taken = take_home(home), Path.rmdir, []

    def remove_late(path: Path) -> None:
        taken.append(take_home(home))
        remove(path)

    monkeypatch.setattr(Path, "rmdir", remove_late)
    remove_home(home)

    with pytest.raises(HomeTaken):
        take_home(home)
    taken[0].close()
    sweeping.close()


def test_a_home_that_goes_while_it_is_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "a"
    home.mkdir()
    make = os.mkdir

    def make_late(path: str, mode: int = 0o777) -> None:
        try:
            make(path, mode)
        except FileExistsError:
            # Here the sweep removes it, before anybody looks whether it is a folder.
            home.rmdir()
            raise

    monkeypatch.setattr(os, "mkdir", make_late)

    take_home(home).close()

    assert home.is_dir()


def test_a_home_that_is_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")

    with pytest.raises(FileExistsError):
        take_home(tmp_path / "a", patience_seconds=60)


def test_a_lock_that_its_holder_removed_keeps_others_out_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = lock_file(path)
    found: list[IO[bytes]] = []
    second = threading.Thread(target=lambda: found.append(lock_file(path)))
    second.start()
    wait_until(lambda: _open_files().count(str(path)) == 2, what="the second to wait", limit_seconds=20)

    path.unlink()
    first.close()
    second.join()

    with pytest.raises(BlockingIOError):
        lock_file(path, waits=False)
    found[0].close()


def _open_files() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(os.readlink(descriptor))
    return found
