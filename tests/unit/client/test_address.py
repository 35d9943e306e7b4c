"""Which platform a command talks to."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.client.address import DEFAULT_ADDRESS, resolve_address
from services.client.errors import NoPlatform
from services.up import endpoints
from services.up.lock import hold_lock
from tests.builders.endpoints import platform_at, write_endpoints


def environ(state_dir: Path, **others: str) -> dict[str, str]:
    return {"TRAINYARD_STATE_DIR": str(state_dir), **others}


def test_the_argument_wins_over_everything(tmp_path: Path) -> None:
    with platform_at(tmp_path, "127.0.0.1:1"):
        assert resolve_address("here:3", environ(tmp_path, TRAINYARD_SERVER="there:2")) == "here:3"


def test_the_environment_wins_over_the_state_directory(tmp_path: Path) -> None:
    with platform_at(tmp_path, "127.0.0.1:1"):
        assert resolve_address(None, environ(tmp_path, TRAINYARD_SERVER="there:2")) == "there:2"


@pytest.mark.parametrize("has_token", [False, True])
def test_the_running_platform_of_the_state_directory_is_found(tmp_path: Path, has_token: bool) -> None:
    with platform_at(tmp_path, "127.0.0.1:12345"):
        assert resolve_address(None, environ(tmp_path), has_token=has_token) == "127.0.0.1:12345"


def test_a_machine_that_never_ran_a_platform_asks_the_usual_port(tmp_path: Path) -> None:
    assert resolve_address(None, environ(tmp_path / "none")) == DEFAULT_ADDRESS


@pytest.mark.parametrize("left", [None, "{ half"])
def test_nobody_is_called_where_the_platform_of_the_state_directory_is_down(tmp_path: Path, left: str | None) -> None:
    if left is not None:
        (tmp_path / endpoints.FILE_NAME).write_text(left)

    with pytest.raises(NoPlatform, match=rf"no platform runs in {tmp_path}: start one with `trainyard up`, .*--server"):
        resolve_address(None, environ(tmp_path))


def test_what_a_killed_platform_left_behind_is_no_address(tmp_path: Path) -> None:
    write_endpoints(tmp_path, "127.0.0.1:12345")

    with pytest.raises(NoPlatform):
        resolve_address(None, environ(tmp_path))


def test_a_platform_that_starts_is_said_to(tmp_path: Path) -> None:
    with hold_lock(tmp_path), pytest.raises(NoPlatform, match="is starting or stopping the platform"):
        resolve_address(None, environ(tmp_path))


def test_who_names_a_token_asks_the_usual_port_beside_a_platform_that_is_down(tmp_path: Path) -> None:
    assert resolve_address(None, environ(tmp_path), has_token=True) == DEFAULT_ADDRESS
