"""`trainyard admin`: from an empty database to a token that works, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from services.client.cli import main
from services.client.errors import ApiError
from services.client.sdk import Trainyard
from services.core.settings import Settings
from services.db.database import Database
from services.storage.local import LocalStore
from tests.integration.identity.conftest import api_server
from tests.stack.identity import token_id

Run = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(Settings(state_dir=tmp_path).resolved_database_url)
    opened.migrate()
    yield opened
    opened.dispose()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*arguments: str) -> Result:
        environ = {"TRAINYARD_STATE_DIR": str(tmp_path)}
        return CliRunner(env=environ).invoke(main, ["admin", *arguments], catch_exceptions=False)

    return call


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_token_is_shown_once_works_and_can_be_taken_back(database: Database, run: Run, tmp_path: Path) -> None:
    run("project", "create", "red")
    made = run("token", "create", "--project", "red", "--role", "submitter", "--expires", "12h", "--note", "CI")
    text = made.stdout.strip()
    (listed,) = document(run("token", "list", "--json"))["tokens"]

    with api_server(Settings(state_dir=tmp_path), database, LocalStore(tmp_path / "objects")) as address:
        with Trainyard(address, token=text) as yard:
            assert list(yard.list_jobs()) == []
        assert run("token", "revoke", listed["id"]).exit_code == 0
    with (
        api_server(Settings(state_dir=tmp_path), database, LocalStore(tmp_path / "objects")) as address,
        Trainyard(address, token=text) as yard,
        pytest.raises(ApiError, match="was revoked") as refused,
    ):
        list(yard.list_jobs())

    assert refused.value.code == "UNAUTHENTICATED"
    assert listed["id"] == token_id(text)
    assert (listed["project"], listed["role"], listed["note"]) == ("red", "submitter", "CI")
    assert listed["expire_time"] > listed["create_time"]
    everything = run("token", "list").stdout + run("audit").stdout + run("audit", "--json").stdout
    assert text.rpartition("_")[2] not in everything
    assert listed["id"] in everything


def test_what_an_administrator_did_is_recorded(database: Database, run: Run) -> None:
    run("project", "create", "red")
    run("project", "set-quota", "red", "--queued-jobs", "3", "--stored-bytes", "2G")
    text = run("token", "create", "--project", "red", "--role", "viewer").stdout.strip()
    run("token", "revoke", token_id(text))

    lines = document(run("audit", "--project", "red", "--json"))["lines"]

    assert [line["action"] for line in lines[::-1]] == [
        "admin create",
        "admin set-quota",
        "admin create",
        "admin revoke",
    ]
    assert lines[2]["resource"] == f"projects/red max_queued_jobs=3 max_stored_bytes={2 * 2**30}"
    assert all("@" in line["peer"] for line in lines)


def test_quotas_are_set_and_taken_away_and_shown_with_what_is_used(database: Database, run: Run) -> None:
    run("project", "create", "red")
    run("project", "set-quota", "red", "--running-jobs", "2", "--stored-bytes", "5G")
    changed = document(run("project", "set-quota", "red", "--running-jobs", "none", "--json"))

    assert changed == {
        "project": "red",
        "max_running_jobs": None,
        "max_queued_jobs": None,
        "max_stored_bytes": 5 * 2**30,
    }
    assert run("project", "list").stdout.splitlines()[1].split() == ["red", "0", "0", "0", "B", "of", "5.0", "GiB"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["project", "create", "A"], 1, "is not a valid id"),
        (["project", "create", "a--b"], 1, "two hyphens"),
        (["project", "set-quota", "nobody", "--queued-jobs", "1"], 1, "trainyard admin project create nobody"),
        (["project", "set-quota", "nobody"], 1, "name at least one of"),
        (["project", "set-quota", "nobody", "--queued-jobs", "many"], 2, "neither a whole number nor"),
        (["token", "create", "--project", "nobody", "--role", "viewer"], 1, "there is no project 'nobody'"),
        (["token", "create", "--project", "nobody", "--role", "king"], 2, "'king' is not one of"),
        (["token", "create", "--project", "p", "--role", "admin", "--expires", "soon"], 2, "write 30d, 12h"),
        (["token", "revoke", "nothing"], 1, "there is no token 'nothing'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_with_the_remedy(
    database: Database, run: Run, arguments: list[str], code: int, said: str
) -> None:
    result = run(*arguments)

    assert result.exit_code == code
    assert said in result.stderr


def test_without_a_database_it_says_how_to_make_one(run: Run) -> None:
    result = run("project", "list")

    assert result.exit_code == 1
    assert "trainyard up" in result.stderr
