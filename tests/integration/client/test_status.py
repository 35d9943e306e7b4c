"""`trainyard status` of a platform whose deployments are still coming up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.client.credentials import LOCAL_TOKEN
from services.client.starting import describe_starting
from services.up import endpoints
from services.up.endpoints import Endpoints, TorchServePorts
from services.up.lock import hold_lock
from tests.builders.galleries import deployed, report, trained
from tests.integration.client.conftest import Run, Server

PORTS = TorchServePorts(inference=1, management=2, metrics=3, grpc=4, grpc_management=5)


@pytest.fixture
def state_dir(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the state directory of a platform that this process is."""
    monkeypatch.setenv("TRAINYARD_STATE_DIR", str(tmp_path))
    (tmp_path / LOCAL_TOKEN).write_text(server.token)
    found = Endpoints(address=server.address, pid=os.getpid(), is_ready=True, parts={}, torchserve=PORTS)
    with hold_lock(tmp_path):
        endpoints.write(tmp_path, found)
        yield tmp_path


def test_status_counts_the_deployments_that_do_not_answer_yet(run: Run, server: Server, state_dir: Path) -> None:
    version = trained(server.database, recipe="classification/train")
    for name in ("early", "late"):
        deployed(server.database, version, name)
    report(server.database, "http://127.0.0.1:1", "early")

    coming = run("status")
    report(server.database, "http://127.0.0.1:1", "late")
    here = run("status")

    assert "1 of 2 deployments do not answer yet; `trainyard deployments list` shows" in coming.stdout
    assert here.exit_code == 0
    assert "do not answer" not in here.stdout


def test_nothing_is_said_of_deployments_where_the_api_does_not_tell(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("ty_default_nobody_" + 64 * "0")

    assert describe_starting(server.address, token) == ""
    assert describe_starting(server.address, tmp_path / "missing") == ""
    assert describe_starting("127.0.0.1:1", token) == ""
