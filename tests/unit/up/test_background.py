"""What the log of a platform in the background keeps, and what is told of its end."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from services.up import endpoints
from services.up.background import cause_of
from services.up.display import LineDisplay, describe_port
from services.up.endpoints import Endpoints, TorchServePorts


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("error: TRAINYARD_X: is wrong\n", "TRAINYARD_X: is wrong"),
        ("2026-11-30T10:00:00Z  a\n2026-11-30T10:00:01Z  error: two\n  lines\n", "two\n  lines"),
        ("error: first\nerror: second\n", "second"),
        ("Traceback\nValueError: error: of ours\n", ""),
        ("", ""),
    ],
)
def test_the_cause_of_an_end_is_the_error_that_was_written_last(said: str, cause: str) -> None:
    assert cause_of(said) == cause


def test_every_line_has_its_time() -> None:
    written = StringIO()
    display = LineDisplay(Console(file=written), lambda: datetime(2026, 11, 30, 8, 5, 9, tzinfo=UTC))

    display.say("stopped")

    assert written.getvalue() == "2026-11-30T08:05:09Z  stopped\n"


def test_another_port_than_the_usual_one_is_explained() -> None:
    assert describe_port(7070, "127.0.0.1:7070") == ""
    assert describe_port(0, "127.0.0.1:41000") == ""
    assert describe_port(7070, "127.0.0.1:41000") == (
        "port 7070 is not free: the API answers at 127.0.0.1:41000; TRAINYARD_API_PORT pins a port of your choice"
    )


def test_the_ports_of_a_killed_platform_are_remembered(tmp_path: Path) -> None:
    ports = TorchServePorts(inference=1, management=2, metrics=3, grpc=4, grpc_management=5)
    endpoints.write(tmp_path, Endpoints(address="127.0.0.1:9", pid=1, is_ready=True, parts={}, torchserve=ports))

    found = endpoints.read_last(tmp_path)

    assert found is not None
    assert found.address == "127.0.0.1:9"
