from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from workers.environment import child_environment, is_allowed


@pytest.mark.parametrize(
    "name",
    [
        "TRAINYARD_S3_SECRET_KEY",
        "TRAINYARD_DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "REDIS_URL",
        "TORCH_HUB_TOKEN",
        "PYTHON_KEYRING_BACKEND",
        "KUBERNETES_SERVICE_HOST",
    ],
)
def test_a_trainer_sees_no_credential_and_no_address(name: str) -> None:
    assert name not in child_environment({name: "x"})


@pytest.mark.parametrize(
    "name", ["PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_WAIT_POLICY", "LC_ALL", "TMPDIR"]
)
def test_a_trainer_sees_what_its_libraries_need(name: str) -> None:
    assert is_allowed(name)


def test_openblas_starts_no_threads_in_a_process_that_forks() -> None:
    assert child_environment({"OPENBLAS_NUM_THREADS": "8"})["OPENBLAS_NUM_THREADS"] == "1"


def test_threads_that_wait_do_not_spin_for_long() -> None:
    probe = child_environment(os.environ) | {"OMP_DISPLAY_ENV": "VERBOSE"}
    told = subprocess.run([sys.executable, "-c", "import torch"], env=probe, capture_output=True, text=True, check=True)
    spins = re.search(r"GOMP_SPINCOUNT = '(\d+)'", told.stderr)
    assert spins, told.stderr
    assert 0 < int(spins[1]) <= 30_000


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "5"), ("OMP_WAIT_POLICY", "ACTIVE")])
def test_how_threads_wait_is_the_users_to_say(name: str, value: str) -> None:
    told = child_environment({name: value})
    assert {key: told[key] for key in told if key in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} == {name: value}
