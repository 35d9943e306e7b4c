"""Ctrl-C of what only waits: it says what goes on, and how to see or stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.core.states import DeploymentState, JobState
from services.db import deployments, jobs
from tests.builders.galleries import trained
from tests.integration.client.conftest import Server
from tests.stack.builders import queued_job

ROOT = Path(__file__).parents[3]
TRAINYARD = [sys.executable, "-c", "from services.client.cli import main; main()"]


def interrupted(server: Server, *arguments: str) -> tuple[int, str, str]:
    """Return the exit code of a command that is interrupted once it has said something, and what it says from then on."""
    environ = {**os.environ, "TRAINYARD_SERVER": server.address, "TRAINYARD_TOKEN": server.token}
    # Shells let what they start in the background ignore SIGINT, and that is inherited: by this test, too.
    command = ["env", "--default-signal=INT", *TRAINYARD, *arguments]
    with subprocess.Popen(
        command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            # What follows the first line is to be under way: an interrupt in a callback of gRPC's would be lost.
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize("command", [("watch",), ("logs", "--follow")])
def test_a_job_that_is_watched_no_more_goes_on(server: Server, command: tuple[str, ...]) -> None:
    job = queued_job(server.database)

    code, _, said = interrupted(server, "jobs", *command, job.id)

    told = f"the job goes on: `trainyard jobs watch {job.id}` shows it again, `trainyard jobs cancel {job.id}` stops it"
    assert (code, said) == (130, f"\n{told}\n")
    with server.database.read() as session:
        assert jobs.get(session, "default", job.id).state is JobState.QUEUED


def test_a_deployment_that_is_waited_for_no_more_goes_on(server: Server) -> None:
    version = trained(server.database, recipe="classification/train", model_id="waited")

    code, _, said = interrupted(server, "deploy", version.job_id, "--wait")

    assert code == 130
    assert said == (
        "\nthe deployment goes on: `trainyard deployments show waited` says how far it is,"
        " `trainyard deployments delete waited` takes it down\n"
    )
    with server.database.read() as session:
        assert deployments.get(session, "default", "waited").state is DeploymentState.PENDING


def test_a_program_that_watches_is_told_nothing(server: Server) -> None:
    code, _, said = interrupted(server, "jobs", "watch", queued_job(server.database).id, "--json")

    assert (code, said) == (130, "\n")
