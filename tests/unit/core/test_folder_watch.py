import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.folder_watch import FolderWatch


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[FolderWatch]:
    found = FolderWatch(tmp_path, lambda name: name.endswith(".msg"))
    yield found
    found.close()


def test_a_file_moved_in_before_the_wait_ends_it(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"x")
    (tmp_path / "part").rename(tmp_path / "one.msg")
    assert watch.wait(10)


def test_a_write_to_a_known_file_ends_a_wait(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "one.msg").touch()
    assert watch.wait(10)
    (tmp_path / "one.msg").write_bytes(b"more")
    assert watch.wait(10)


def test_a_change_is_told_of_once(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "one.msg").touch()
    assert watch.wait(0)
    assert not watch.wait(0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a wait is a short sleep")
def test_other_files_do_not_end_a_wait(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "one.txt").touch()
    assert not watch.wait(0.05)


def test_closing_ends_a_wait_of_another_thread(watch: FolderWatch) -> None:
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(watch.wait(60)))
    waiting.start()
    watch.close()
    waiting.join(10)
    assert ended == [False]


def test_without_the_kernels_word_a_wait_is_a_short_sleep(tmp_path: Path) -> None:
    watch = FolderWatch(tmp_path / "missing", lambda _name: True)
    assert watch.wait(60)
    watch.close()
