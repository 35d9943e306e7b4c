from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from services.core.errors import StoreUnavailable
from services.core.settings import Settings
from services.storage.local import LocalStore
from services.storage.open import open_store


def test_a_copied_store_directory_is_the_same_store(tmp_path: Path) -> None:
    LocalStore(tmp_path / "a").put("k/x", b"body")

    (tmp_path / "a").rename(tmp_path / "b")

    assert LocalStore(tmp_path / "b").get("k/x") == b"body"


@pytest.mark.parametrize("is_fresh", [True, False], ids=["fresh key", "replaced key"])
@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_a_writer_killed_between_any_two_renames_leaves_the_old_object_or_the_new_one(
    tmp_path: Path, is_fresh: bool, crash_at: int
) -> None:
    store = LocalStore(tmp_path / "store")
    if not is_fresh:
        store.put("k/x", b"old")
    store.put("warm/up", b"x")

    if (pid := os.fork()) == 0:
        # The child dies as by SIGKILL before its n-th rename: no `finally` runs.
        real, count = Path.replace, 0

        def replace(self: Path, target: Path) -> Path:
            nonlocal count
            count += 1
            if count == crash_at:
                os._exit(9)
            return real(self, target)

        Path.replace = replace  # type: ignore[method-assign, assignment]
        store.put("k/x", b"new")
        os._exit(0)
    os.waitpid(pid, 0)

    assert not store.exists("k/x") or store.get("k/x") in (b"old", b"new")
    assert is_fresh or store.exists("k/x")
    store.put("k/x", b"later")
    assert store.get("k/x") == b"later"


def test_a_folder_that_a_delete_prunes_while_a_put_makes_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store")
    store.put("k/old", b"old")
    make, pruned = os.mkdir, []

    def make_late(path: Path, mode: int = 0o777) -> None:
        try:
            make(path, mode)
        except FileExistsError:
            if path.name == "k" and path not in pruned:
                pruned.append(path)
                shutil.rmtree(path)
            raise

    monkeypatch.setattr(os, "mkdir", make_late)
    store.put("k/new", b"new")

    assert len(pruned) == 2
    assert store.get("k/new") == b"new"


def test_a_writer_that_hangs_keeps_nobody_from_another_key(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    hangs, heard = os.pipe(), os.pipe()

    if (pid := os.fork()) == 0:
        # It stops with the lock in its hands, as a process does that nobody gives a processor.
        real = Path.replace

        def replace(self: Path, target: Path) -> Path:
            if "scratch" in target.parts:
                return real(self, target)
            os.write(heard[1], b"x")
            os.read(hangs[0], 1)
            os._exit(0)

        Path.replace = replace  # type: ignore[method-assign, assignment]
        store.put("k/slow", b"never")
    os.read(heard[0], 1)
    other = threading.Thread(target=store.put, args=("k/x", b"body"), daemon=True)
    other.start()
    other.join(timeout=20)
    is_held_up = other.is_alive()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    assert not is_held_up
    assert store.get("k/x") == b"body"
    store.put("k/slow", b"later")
    assert store.get("k/slow") == b"later"
    assert not any((tmp_path / "store" / "locks").iterdir())


def test_what_killed_writers_left_is_swept_after_a_day(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name, age in (("old", 2 * 86_400), ("running", 60)):
        (scratch / name).write_bytes(b"half")
        stamp = (tmp_path / "scratch").stat().st_mtime - age
        os.utime(scratch / name, (stamp, stamp))

    LocalStore(tmp_path).put("a", b"x")

    assert [path.name for path in scratch.iterdir()] == ["running"]


def test_a_directory_that_cannot_be_used_is_an_outage_not_a_missing_object(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the directory should be")

    with pytest.raises(StoreUnavailable):
        LocalStore(tmp_path / "store").put("a", b"x")


def test_settings_without_a_store_mean_files_under_the_state_directory(tmp_path: Path) -> None:
    open_store(Settings(state_dir=tmp_path)).put("a/b", b"x")

    assert (tmp_path / "objects" / "objects" / "a" / "b").read_bytes() == b"x"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/bucket",
        "s3://host:9000",
        "s3://host/bucket/deeper",
        "s3://key:secret@host/bucket",
        "file://relative",
    ],
)
def test_an_address_that_is_no_store_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="TRAINYARD_OBJECT_STORE_URL must be") as caught:
        open_store(Settings(object_store_url=url))

    assert "secret@" not in str(caught.value)
