"""`trainyard up --background`: settings that cannot work, an interrupted start, and the log of it all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import trustme

from services.core.errors import SettingsInvalid
from services.up import background
from services.up.check import check_settings
from services.up.lock import LOCK_NAME, holder
from services.up.part import LOG_LIMIT_BYTES
from services.up.state_dir import make
from tests.stack.platform import settings_of

ROOT = Path(__file__).parents[3]
UP = [sys.executable, "-c", "from services.client.cli import main; main()", "up", "--background"]


def write_pair(folder: Path, name: str) -> tuple[str, str]:
    made = trustme.CA().issue_cert("localhost")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    made.cert_chain_pems[0].write_to_path(str(cert))
    made.private_key_pem.write_to_path(str(key))
    return str(cert), str(key)


def test_a_certificate_without_a_key_that_fits_is_found_before_a_part_starts(tmp_path: Path) -> None:
    (cert, key), (_, other) = write_pair(tmp_path, "one"), write_pair(tmp_path, "two")
    missing = str(tmp_path / "missing.key")

    for given, said in (
        ({"TRAINYARD_TLS_CERT_FILE": cert}, "set TRAINYARD_TLS_KEY_FILE"),
        ({"TRAINYARD_TLS_CERT_FILE": cert, "TRAINYARD_TLS_KEY_FILE": missing}, "TRAINYARD_TLS_KEY_FILE: .* No such"),
        ({"TRAINYARD_TLS_CERT_FILE": cert, "TRAINYARD_TLS_KEY_FILE": other}, "TRAINYARD_TLS_CERT_FILE and .* are not"),
    ):
        with pytest.raises(SettingsInvalid, match=said):
            check_settings(settings_of(given, tmp_path))

    check_settings(settings_of({"TRAINYARD_TLS_CERT_FILE": cert, "TRAINYARD_TLS_KEY_FILE": key}, tmp_path))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRAINYARD_OBJECT_STORE_URL", "http://foo"),
        ("TRAINYARD_BROKER_URL", "foo://bar"),
        ("TRAINYARD_DATABASE_URL", "mysql://x/y"),
        ("TRAINYARD_HOST", "203.0.113.5"),
    ],
)
def test_an_address_that_no_part_can_use_is_found_before_a_part_starts(
    tmp_path: Path, variable: str, value: str
) -> None:
    with pytest.raises(SettingsInvalid, match=variable):
        check_settings(settings_of({variable: value}, tmp_path))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TRAINYARD_WORKER_SLOTS", "abc", "TRAINYARD_WORKER_SLOTS: must be a whole number, not 'abc'"),
        ("TRAINYARD_TLS_CERT_FILE", "server.pem", "TLS needs a certificate and its key: set TRAINYARD_TLS_KEY_FILE"),
    ],
)
def test_such_a_setting_ends_the_command_with_one_line_and_starts_nothing(
    tmp_path: Path, variable: str, value: str, said: str
) -> None:
    environ = {**os.environ, "TRAINYARD_STATE_DIR": str(tmp_path / "state"), variable: value}

    done = subprocess.run(UP, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (1, f"error: {said}\n")
    assert not (tmp_path / "state").exists()


def test_a_database_that_does_not_answer_ends_the_start_with_one_line(tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "TRAINYARD_STATE_DIR": str(tmp_path / "state"),
        "TRAINYARD_DATABASE_URL": "postgresql://me:secret@127.0.0.1:9/yard",
    }

    done = subprocess.run(UP, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert done.stderr.startswith("error: The metadata database does not answer: ")
    assert done.stderr.endswith("Connection refused. Check TRAINYARD_DATABASE_URL.\n")
    assert "secret" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_start_leaves_nothing_in_the_background(tmp_path: Path, number: signal.Signals) -> None:
    environ = {**os.environ, "TRAINYARD_STATE_DIR": str(tmp_path / "state"), "OMP_NUM_THREADS": "1"}
    # Shells let what they start in the background ignore SIGINT, and that is inherited: by this test, too.
    command = ["env", "--default-signal=INT", *UP]
    waiting = subprocess.Popen(
        command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = background.log_path(tmp_path / "state")
    end = time.monotonic() + 60.0
    while not log.exists() or "starting (pid" not in log.read_text():
        assert waiting.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    pid = holder(tmp_path / "state")
    assert pid is not None
    started = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]

    try:
        waiting.send_signal(number)
        said, _ = waiting.communicate(timeout=60)
        left = [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    finally:
        if started[0].is_running():
            started[0].kill()

    assert waiting.returncode == 128 + number
    assert "interrupted: what was started is stopped again" in said
    assert left == []
    assert not (tmp_path / "state" / LOCK_NAME).exists()


def test_a_start_appends_to_the_log_and_tells_only_its_own_error(tmp_path: Path) -> None:
    make(tmp_path)
    log = background.log_path(tmp_path)
    log.write_text("2026-11-29T10:00:00Z  error: why the last one died\n")

    started = background.launch(tmp_path, {**os.environ, "TRAINYARD_WORKER_SLOTS": "abc"})
    started.process.wait(timeout=60)

    assert started.describe_end() == "TRAINYARD_WORKER_SLOTS: must be a whole number, not 'abc'"
    before, now = log.read_text().splitlines()
    assert before.endswith("why the last one died")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  error: TRAINYARD_WORKER_SLOTS: .*", now)


def test_a_log_that_grew_too_long_is_put_aside_at_a_start(tmp_path: Path) -> None:
    make(tmp_path)
    log = background.log_path(tmp_path)
    with log.open("wb") as file:
        file.truncate(LOG_LIMIT_BYTES + 1)

    started = background.launch(tmp_path, {**os.environ, "TRAINYARD_WORKER_SLOTS": "abc"})
    started.process.wait(timeout=60)

    assert log.stat().st_size < 1000
    assert log.with_suffix(".log.1").stat().st_size == LOG_LIMIT_BYTES + 1
