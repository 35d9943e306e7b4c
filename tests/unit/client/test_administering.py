"""An administrator whose database does not answer reads why, and what to do about that."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from services.client.cli import main


def refusal(state_dir: Path, database_url: str = "") -> str:
    environ = {"TRAINYARD_STATE_DIR": str(state_dir), "TRAINYARD_DATABASE_URL": database_url}
    result = CliRunner(env=environ).invoke(main, ["admin", "project", "list"])
    assert result.exit_code == 1
    return result.stderr


def test_a_state_directory_without_a_database_needs_a_platform_first(tmp_path: Path) -> None:
    told = refusal(tmp_path / "none")

    assert "unable to open database file; run `trainyard up` once" in told


def test_a_file_that_is_no_database_is_not_made_by_running_the_platform(tmp_path: Path) -> None:
    (tmp_path / "metadata.sqlite3").mkdir()

    told = refusal(tmp_path)

    assert f"see whether you may read and write {tmp_path / 'metadata.sqlite3'}" in told
    assert "trainyard up" not in told


def test_a_server_that_refuses_says_so_and_names_no_password(tmp_path: Path) -> None:
    told = refusal(tmp_path, "postgresql://somebody:hunter2@127.0.0.1:1/trainyard")

    assert "Connection refused; see that it runs, and that TRAINYARD_DATABASE_URL has" in told
    assert "hunter2" not in told
