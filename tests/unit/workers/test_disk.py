"""A worker and its trainers on a disk that takes no more."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.core.settings import Settings
from services.db import workers
from services.db.database import Database
from services.storage.local import LocalStore
from workers import runtime as runtime_module
from workers.engine.frames import FrameKind, FrameParser
from workers.failure import write_log
from workers.plan import LOG_NAME
from workers.registry import Registry
from workers.runtime import Identity, Runtime


class Disks:
    """The free space under each directory, in place of the machine's."""

    def __init__(self, free: dict[Path, int]) -> None:
        self._free = free

    def usage(self, directory: Path) -> Any:
        if directory not in self._free:
            raise FileNotFoundError(directory)
        return SimpleNamespace(total=100 << 30, free=self._free[directory])


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    parts: Any = dict.fromkeys(("settings", "identity", "database", "cache", "warm", "slots"))
    return Runtime(**parts, store=LocalStore(tmp_path / "store"), home=tmp_path / "home")


@pytest.mark.parametrize(
    ("home", "store", "full"),
    [
        pytest.param(3 << 30, 3 << 30, None, id="room on both"),
        pytest.param(1 << 30, 3 << 30, "home", id="its own disk"),
        pytest.param(3 << 30, 1 << 30, "store", id="the disk of a local object store"),
        pytest.param(3 << 30, None, None, id="a store that has no object yet"),
    ],
)
def test_a_worker_knows_which_of_its_disks_is_full(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, home: int, store: int | None, full: str | None
) -> None:
    root = cast("LocalStore", runtime.store).root
    disks = Disks({runtime.home: home} | ({} if store is None else {root: store}))
    monkeypatch.setattr(runtime_module.shutil, "disk_usage", disks.usage)

    assert runtime.full_disk == {None: None, "home": runtime.home, "store": root}[full]


def test_a_worker_tells_everybody_that_its_disk_is_full_and_that_it_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'metadata.sqlite3'}")
    database.migrate()
    parts: Any = dict.fromkeys(("cache", "warm", "slots"))
    identity = Identity(worker_id="w", host="h", boot_id="b")
    settings = Settings(state_dir=tmp_path)
    store = LocalStore(tmp_path / "store")
    home = tmp_path / "home"
    runtime = Runtime(**parts, settings=settings, identity=identity, database=database, store=store, home=home)
    disks = {home: 0}
    monkeypatch.setattr(runtime_module.shutil, "disk_usage", Disks(disks).usage)

    seen = []
    for disks[home] in (0, 3 << 30):
        Registry(runtime).beat()
        with database.read() as session:
            seen += [worker.is_disk_full for worker in workers.list_workers(session)]

    assert seen == [True, False]
    database.dispose()


def test_a_trainer_whose_log_takes_no_more_still_says_why_it_ended(tmp_path: Path) -> None:
    (tmp_path / LOG_NAME).symlink_to("/dev/full")
    frames_r, frames_w = os.pipe()
    watch_r, watch_w = os.pipe()
    code = (
        "import os, sys; from pathlib import Path; from workers import child; "
        "os._exit(child.main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), parent_pid=os.getppid()))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), str(frames_w), str(watch_r)]

    subprocess.run(arguments, pass_fds=(frames_w, watch_r), check=False, timeout=120)

    for fd in (frames_w, watch_r, watch_w):
        os.close(fd)
    kinds = [frame.kind for frame in FrameParser().feed(os.read(frames_r, 1 << 20))]
    os.close(frames_r)
    assert kinds == [FrameKind.FAILURE]


def test_a_log_that_takes_nothing_keeps_nobody_from_telling_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        write_log("what a trainer of many says before it ends")
        with pytest.raises(OSError, match="No space left"):
            sys.stderr.write("as it would be without")
