from __future__ import annotations

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
