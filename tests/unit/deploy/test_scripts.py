"""The shell scripts of deploy/ that can destroy or reveal something."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from services.identity.token import parse

DEPLOY = Path(__file__).parents[3] / "deploy"
ENTRYPOINT = DEPLOY / "offline" / "postgres" / "entrypoint.sh"


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)


def make_secrets(folder: Path) -> dict[str, str]:
    done = run(DEPLOY / "secrets.sh", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    return {path.name: path.read_text().strip() for path in folder.iterdir()}


def test_secrets_are_random_and_addresses_hold_them(tmp_path: Path) -> None:
    first, second = make_secrets(tmp_path / "first"), make_secrets(tmp_path / "second")

    random = ("postgres_password", "redis_conf", "trainyard_s3_secret_key", "grafana_admin_password")
    assert all(first[name] != second[name] and len(first[name]) >= 64 for name in random)
    assert parse(first["bootstrap_token"]) not in (None, parse(second["bootstrap_token"]))
    assert f":{first['postgres_password']}@postgres:5432/" in first["trainyard_database_url"]
    assert f":{first['redis_conf'].removeprefix('requirepass ')}@redis:6379/" in first["trainyard_broker_url"]


def test_making_secrets_again_keeps_them_and_makes_what_is_missing(tmp_path: Path) -> None:
    before = make_secrets(tmp_path)
    (tmp_path / "grafana_admin_password").unlink()
    (tmp_path / "trainyard_s3_access_key").chmod(0o600)
    (tmp_path / "trainyard_s3_access_key").write_text("mine")

    after = make_secrets(tmp_path)

    assert after["trainyard_s3_access_key"] == "mine"
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"grafana_admin_password", "trainyard_s3_access_key"}


def test_only_their_owner_gets_to_the_secrets(tmp_path: Path) -> None:
    make_secrets(tmp_path / "secrets")

    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    # Users of containers read the files themselves, which the engine mounts past the folder.
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o444}


def test_a_database_without_a_password_is_not_made(tmp_path: Path) -> None:
    done = run(ENTRYPOINT, "postgres", PGDATA=str(tmp_path / "data"))

    assert done.returncode == 1
    assert "POSTGRES_PASSWORD_FILE" in done.stderr


@pytest.mark.parametrize("name", ["base", "notes.txt"])
def test_files_that_are_no_cluster_are_left_alone(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / name).write_text("precious")

    done = run(ENTRYPOINT, "postgres", PGDATA=str(data), POSTGRES_PASSWORD="x")

    assert done.returncode == 1
    assert "no cluster" in done.stderr
    assert (data / name).read_text() == "precious"


def test_an_existing_cluster_is_started_as_it_is(tmp_path: Path) -> None:
    data, tools = tmp_path / "data", tmp_path / "tools"
    for folder in (data, tools):
        folder.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    fake = tools / "postgres"
    fake.write_text('#!/bin/sh\necho "started $*"\n')
    fake.chmod(0o755)

    done = run(ENTRYPOINT, "postgres", PGDATA=str(data), PATH=f"{tools}:{os.environ['PATH']}")

    assert done.stdout == "started -c listen_addresses=*\n"
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_script_parses(path: Path) -> None:
    assert run("bash", "-n", path).stderr == ""
