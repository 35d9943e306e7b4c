"""A short run of the fuzzer; `make fuzz` is the long one, on both databases."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.fuzz.judge import Outcome, faults
from tests.fuzz.rpcs import every_rpc
from tests.fuzz.run import fuzz
from tests.fuzz.target import fuzz_target

CALLS = 600
CODE = grpc.StatusCode


def test_random_calls_of_every_rpc_find_no_fault_of_the_server(tmp_path: Path) -> None:
    with fuzz_target(tmp_path) as target:
        report = fuzz(target, calls=CALLS, seed_number=1)

    assert report["examples"] == []
    assert (report["internal"], report["leaks"], report["crashes"]) == (0, 0, 0)
    assert report["calls"] >= CALLS
    assert report["by_rpc"].keys() == {rpc.path for rpc in every_rpc()}
    # Calls that are all refused at the door would show nothing of what lies behind it.
    answered = [path for path, codes in report["by_rpc"].items() if "OK" in codes]
    assert len(answered) >= 15


def test_every_service_of_the_contract_is_called() -> None:
    services = {rpc.path.split("/")[1] for rpc in every_rpc()}

    assert services >= {f"trainyard.v1.{name}Service" for name in ("Job", "Dataset", "Recipe", "Model", "Deployment")}
    assert services >= {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert {(rpc.is_client_streaming, rpc.is_server_streaming) for rpc in every_rpc()} == {
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    }


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(Outcome(CODE.INTERNAL, "internal error"), id="a fault of ours"),
        pytest.param(Outcome(CODE.UNKNOWN, "Unexpected <class 'KeyError'>"), id="an exception nobody caught"),
        pytest.param(Outcome(CODE.INVALID_ARGUMENT, "cannot open /var/lib/trainyard/x"), id="a path"),
        pytest.param(Outcome(CODE.NOT_FOUND, "near SELECT id FROM jobs"), id="a statement"),
        pytest.param(Outcome(CODE.NOT_FOUND, "(psycopg.errors.DataError) x"), id="a library"),
        pytest.param(Outcome(CODE.NOT_FOUND, 'File "services/db/jobs.py", line 3, in get'), id="a traceback"),
        pytest.param(Outcome(CODE.UNAVAILABLE, 'reason: "DATABASE_UNAVAILABLE"'), id="a database believed dead"),
        pytest.param(Outcome(CODE.OK, "the-token-of-somebody"), id="a secret"),
    ],
)
def test_the_judge_sees_what_must_not_be_said(outcome: Outcome) -> None:
    assert faults(outcome, [b"anything"], ["the-token-of-somebody"])


def test_the_judge_lets_a_caller_have_his_own_words_back() -> None:
    said = Outcome(CODE.INVALID_ARGUMENT, "name: '/etc/passwd; SELECT x' does not match projects/{project}/jobs/{job}")

    assert faults(said, [b"\n\x17/etc/passwd; SELECT x"]) == []
    assert faults(Outcome(CODE.NOT_FOUND, "No such job."), [b""]) == []
