"""The state directory belongs to its owner alone, and one that cannot be used is named."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from services.backup.place import open_platform
from services.core.errors import SettingsInvalid
from services.core.settings import Settings
from services.db.database import Database
from services.up.lock import hold_lock, holder
from services.up.state_dir import close, faults_named, log_dir, make


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_directory_is_its_owner_s_alone(tmp_path: Path) -> None:
    state_dir = tmp_path / "deep" / "state"

    make(state_dir)

    assert mode_of(state_dir) == 0o700
    assert close(state_dir) == ""
    assert log_dir(state_dir).is_dir()


@pytest.mark.parametrize("content", [None, "metadata.sqlite3", "token"])
def test_a_directory_of_a_platform_that_others_can_read_is_closed(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / content).touch()
    tmp_path.chmod(0o2755)

    make(tmp_path)

    assert close(tmp_path) == f"other users could look into {tmp_path}; now it is yours alone"
    assert close(tmp_path) == ""

    assert mode_of(tmp_path) == 0o700


def test_a_directory_that_holds_other_things_too_keeps_its_mode_and_is_spoken_of(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    make(tmp_path)
    tmp_path.chmod(0o755)

    assert "holds thesis.tex besides a platform: close it with `chmod 700`" in close(tmp_path)

    assert mode_of(tmp_path) == 0o755


def test_a_directory_that_everybody_may_use_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    tmp_path.chmod(0o1777)

    assert close(tmp_path) == ""

    assert mode_of(tmp_path) == 0o1777


def test_a_volume_that_keeps_its_mode_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    tmp_path.chmod(0o777)
    monkeypatch.setattr(Path, "chmod", refuse)

    assert close(tmp_path) == ""


def test_migrating_makes_the_directory_for_its_owner_alone(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    database = Database(Settings(state_dir=state_dir).resolved_database_url)

    database.migrate()
    database.dispose()

    assert mode_of(state_dir) == 0o700


def test_restoring_makes_the_directory_for_its_owner_alone(tmp_path: Path) -> None:
    with open_platform(Settings(state_dir=tmp_path / "state")):
        pass

    assert mode_of(tmp_path / "state") == 0o700


@pytest.mark.parametrize("below", ["", "x"])
def test_a_file_in_the_place_of_the_directory_is_named_with_the_setting(tmp_path: Path, below: str) -> None:
    state_dir = tmp_path / "file" / below
    (tmp_path / "file").touch()

    for use in (make, holder, lambda path: hold_lock(path).__enter__()):
        with pytest.raises(SettingsInvalid, match=rf"TRAINYARD_STATE_DIR={state_dir} cannot be the state directory"):
            use(state_dir)


def test_a_directory_that_may_not_be_written_is_named_with_the_setting(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "logs"))

    with pytest.raises(SettingsInvalid) as caught, faults_named(tmp_path):
        raise denied

    assert str(caught.value) == (
        f"TRAINYARD_STATE_DIR={tmp_path}: {tmp_path}/logs may not be used by this user (Permission denied); "
        f"give the directory to user {os.geteuid()}, or choose another place"
    )


def test_an_error_that_the_setting_cannot_help_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), faults_named(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
