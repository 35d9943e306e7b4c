from __future__ import annotations

from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from services.agent.readiness import make_app


def ask(path: str, *answers: bool) -> list[tuple[str, bytes]]:
    """Ask an app whose TorchServe answers in turn as given; return statuses and bodies."""
    left = list(answers)
    app = make_app(lambda: left.pop(0))
    seen: list[tuple[str, bytes]] = []
    for _ in answers:
        environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": ""}
        setup_testing_defaults(environ)
        said: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(app(environ, lambda status, headers, said=said: said.append((status, headers))))
        status, headers = said[0]
        assert [name for name, _ in headers].count("Content-Length") == 0
        # What the standard library's server does with the list it is given.
        headers.append(("Content-Length", str(len(body))))
        seen.append((status, body))
    return seen


def test_readiness_is_asked_anew_every_time() -> None:
    answers = ask("/readyz", False, True, False)

    assert [status for status, _ in answers] == ["503 Service Unavailable", "200 OK", "503 Service Unavailable"]
    assert answers[1][1] == b"ready\n"


@pytest.mark.parametrize("path", ["/metrics", "/"])
def test_other_paths_are_the_metrics_of_the_process(path: str) -> None:
    ((status, body),) = ask(path, True)

    assert status == "200 OK"
    assert b"python_info" in body
