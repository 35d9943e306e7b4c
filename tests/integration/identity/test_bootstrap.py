"""How the first token comes to be: kept by this machine, or given by an operator."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.roles import Role
from services.db import audit, tokens
from services.db.database import Database
from services.identity import token as token_text
from services.identity.bootstrap import BootstrapInvalid, bootstrap, ensure_local
from tests.stack.identity import token_id


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'metadata.sqlite3'}")
    opened.migrate()
    yield opened
    opened.dispose()


def test_the_token_of_a_machine_is_its_owners_alone_and_stays_the_same(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"

    before = os.umask(0)
    try:
        made = ensure_local(database, path)
    finally:
        os.umask(before)
    text = path.read_text()
    again = ensure_local(database, path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (made.project, made.role, made.expire_time) == ("default", Role.ADMIN, None)
    assert again == made
    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("spoiled", ["revoked", "removed", "cut short"])
def test_a_token_that_lets_nobody_in_is_made_anew(database: Database, tmp_path: Path, spoiled: str) -> None:
    path = tmp_path / "token"
    first = ensure_local(database, path)
    if spoiled == "revoked":
        with database.write() as session:
            tokens.revoke(session, first.id)
    elif spoiled == "removed":
        path.unlink()
    else:
        path.write_text(path.read_text()[:40])

    second = ensure_local(database, path)

    assert second.id != first.id
    assert second.id == token_id(path.read_text().strip())


def test_a_state_directory_that_moves_to_another_database_takes_its_token_along(
    database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    made = ensure_local(database, path)
    other = Database(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    other.migrate()

    moved = ensure_local(other, path)

    assert moved.id == made.id
    other.dispose()


def migrate(tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "TRAINYARD_STATE_DIR": str(tmp_path), **environ}
    command = [sys.executable, "-m", "services.up.migrate"]
    return subprocess.run(command, env=full, capture_output=True, text=True, check=False)


def test_an_operators_token_is_made_with_its_project_and_recorded(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "bootstrap"
    path.write_text(token_text.generate("team", "bootstrap") + "\n")

    done = [migrate(tmp_path, TRAINYARD_BOOTSTRAP_TOKEN_FILE=str(path)) for _ in range(2)]

    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    with database.read() as session:
        (found,) = tokens.list_all(session)
        lines = audit.page(session, page_size=9)
    assert (found.id, found.project, found.role) == ("bootstrap", "team", Role.ADMIN)
    assert [(line.action, line.resource) for line in lines] == [("bootstrap", "tokens/bootstrap")]


def test_a_file_without_a_token_is_refused_with_what_belongs_in_it(tmp_path: Path) -> None:
    path = tmp_path / "bootstrap"
    path.write_text("hunter2")

    done = migrate(tmp_path, TRAINYARD_BOOTSTRAP_TOKEN_FILE=str(path))

    assert done.returncode == 1
    assert f"{path} holds no token: write ty_<project>_<id>_<secret>" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_missing_file_is_named(database: Database, tmp_path: Path) -> None:
    with pytest.raises(BootstrapInvalid, match=r"TRAINYARD_BOOTSTRAP_TOKEN_FILE: .*nothing cannot be read"):
        bootstrap(database, tmp_path / "nothing")


def test_a_database_that_does_not_answer_is_one_line_with_the_reason(tmp_path: Path) -> None:
    done = migrate(tmp_path, TRAINYARD_DATABASE_URL="postgresql://somebody:hunter2@127.0.0.1:1/trainyard")

    assert done.returncode == 1
    assert done.stderr.startswith("error: The metadata database does not answer: connection failed")
    assert "Connection refused" in done.stderr
    assert "hunter2" not in done.stderr
