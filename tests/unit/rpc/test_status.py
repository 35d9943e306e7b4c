from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

from services.core.errors import (
    Code,
    DatabaseUnavailable,
    IntegrityError,
    JobNotFound,
    PlatformError,
    RequestInvalid,
    Violation,
)
from services.rpc.status import CODES, internal_status, status_of


def all_errors(root: type[PlatformError] = PlatformError) -> Iterator[type[PlatformError]]:
    yield root
    for kind in root.__subclasses__():
        yield from all_errors(kind)


def wire_errors() -> list[type[PlatformError]]:
    """Return the errors a server can meet: those of the data plane never cross the wire as exceptions."""
    kinds = {kind for kind in all_errors() if not kind.__module__.startswith("workers.")}
    return sorted(kinds, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", wire_errors())
def test_every_error_has_a_status(kind: type[PlatformError]) -> None:
    status = status_of(kind(), request_id="r")

    assert status.code == CODES[kind.code].value[0] != grpc.StatusCode.OK.value[0]
    assert status.message


@pytest.mark.parametrize("code", Code)
def test_codes_keep_their_names(code: Code) -> None:
    assert CODES[code].name == code.name


def test_a_mistake_of_the_caller_is_answered_in_full() -> None:
    violations = [Violation("config.optim.lr", "must be above 0"), Violation("labels", "are too many")]

    status = status_of(RequestInvalid(violations=violations), request_id="r")

    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert [violation.field for violation in bad_request.field_violations] == ["config.optim.lr", "labels"]


@pytest.mark.parametrize("kind", [IntegrityError, DatabaseUnavailable, PlatformError])
def test_a_fault_of_ours_keeps_its_message_to_itself(kind: type[PlatformError]) -> None:
    status = status_of(kind("could not connect to 10.0.0.1, SELECT * FROM jobs"), request_id="r")

    assert "SELECT" not in status.message
    assert "10.0.0.1" not in status.message


def test_what_may_be_tried_again_says_when() -> None:
    retry = error_details_pb2.RetryInfo()

    assert any(detail.Unpack(retry) for detail in status_of(DatabaseUnavailable(), request_id="r").details)
    assert not any(detail.Unpack(retry) for detail in status_of(JobNotFound(), request_id="r").details)


def test_an_unforeseen_fault_names_its_request_only() -> None:
    status = internal_status(request_id="request-1")

    assert status.message == "internal error (request request-1)"


def test_a_status_stays_below_what_clients_accept() -> None:
    violations = [Violation(f"config.unknown_{i}" * 20, "x" * 10_000) for i in range(1000)]

    status = status_of(RequestInvalid(violations=violations), request_id="r")

    assert status.ByteSize() < 7000


def test_what_does_not_fit_is_counted_with_what_each_line_of_it_stands_for() -> None:
    violations = [Violation("mask.png", "x" * 500) for _ in range(20)]
    violations.append(Violation("dataset", "30 more are not listed", count=30))

    status = status_of(RequestInvalid(violations=violations), request_id="r")

    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    *listed, rest = bad.field_violations
    assert rest.description == f"and {50 - len(listed)} more"
