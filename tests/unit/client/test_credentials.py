from __future__ import annotations

from pathlib import Path

import pytest

from services.client.credentials import Credentials, names_token, resolve_credentials, resolve_project
from services.client.errors import CredentialsInvalid
from services.identity import token
from tests.builders.endpoints import platform_at, write_endpoints

LOCAL, REMOTE = "127.0.0.1:7070", "platform.example.org:443"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("given", "variable", "token"):
        (tmp_path / name).write_text(f"{token.generate('red', name)}\n")
    return tmp_path


def environ(files: Path, *names: str) -> dict[str, str]:
    known = {
        "TRAINYARD_TOKEN": token.generate("red", "text"),
        "TRAINYARD_TOKEN_FILE": str(files / "variable"),
        "TRAINYARD_STATE_DIR": str(files),
    }
    return {name: known[name] for name in names}


@pytest.mark.parametrize(
    ("names", "arguments", "expected"),
    [
        pytest.param(
            ("TRAINYARD_TOKEN",), {"token": token.generate("red", "argument")}, "argument", id="what is given"
        ),
        pytest.param(("TRAINYARD_TOKEN",), {"token_file": "given"}, "given", id="the file that is given"),
        pytest.param(("TRAINYARD_TOKEN", "TRAINYARD_TOKEN_FILE"), {}, "text", id="the variable"),
        pytest.param(("TRAINYARD_TOKEN_FILE", "TRAINYARD_STATE_DIR"), {}, "variable", id="the file of the variable"),
        pytest.param(("TRAINYARD_STATE_DIR",), {}, "token", id="what this machine keeps"),
    ],
)
def test_the_nearest_token_is_shown(
    files: Path, names: tuple[str, ...], arguments: dict[str, str], expected: str
) -> None:
    if "token_file" in arguments:
        arguments = {"token_file": str(files / arguments["token_file"])}

    named = environ(files, *names)

    with platform_at(files, LOCAL):
        shown = resolve_credentials(LOCAL, named, **arguments)  # type: ignore[arg-type]

    assert names_token(named, **arguments) is (expected != "token")  # type: ignore[arg-type]
    assert shown.token.split("_")[2] == expected
    assert shown.metadata == (("authorization", f"Bearer {shown.token}"),)


@pytest.mark.parametrize("address", [REMOTE, "127.0.0.1:7071", "[::1]:7070"])
def test_the_token_of_this_machine_goes_nowhere_else(files: Path, address: str) -> None:
    with platform_at(files, LOCAL):
        assert resolve_credentials(address, environ(files, "TRAINYARD_STATE_DIR")).metadata == ()


def test_the_token_of_a_platform_that_is_down_goes_to_nobody(files: Path) -> None:
    # Its port may be another user's by now, also where a kill left the file of addresses behind.
    assert resolve_credentials(LOCAL, environ(files, "TRAINYARD_STATE_DIR")).metadata == ()
    write_endpoints(files, LOCAL)
    assert resolve_credentials(LOCAL, environ(files, "TRAINYARD_STATE_DIR")).metadata == ()


def test_no_token_is_no_error_yet(tmp_path: Path) -> None:
    assert resolve_credentials(LOCAL, {"TRAINYARD_STATE_DIR": str(tmp_path)}).metadata == ()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"TRAINYARD_TOKEN_FILE": "/nowhere/token"}, "TRAINYARD_TOKEN_FILE: /nowhere/token cannot be read"),
        ({"TRAINYARD_TOKEN": "a\nb"}, "characters that none has"),
        ({"TRAINYARD_TLS_CA": "/nowhere/ca.pem"}, "TRAINYARD_TLS_CA: /nowhere/ca.pem cannot be read"),
        ({"TRAINYARD_TLS_CLIENT_CERT": "c"}, "need TRAINYARD_TLS_CA"),
        ({"TRAINYARD_TLS_CA": "system", "TRAINYARD_TLS_CLIENT_KEY": "k"}, "go together"),
    ],
)
def test_what_cannot_be_used_is_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(CredentialsInvalid, match=said):
        resolve_credentials(REMOTE, environ)


def test_a_token_shows_nothing_of_itself_in_logs() -> None:
    assert "ty_" not in repr(Credentials(token.generate("red")))


@pytest.mark.parametrize(
    ("project", "environ", "shown", "expected"),
    [
        ("green", {"TRAINYARD_PROJECT": "blue"}, token.generate("red"), "green"),
        (None, {"TRAINYARD_PROJECT": "blue"}, token.generate("red"), "blue"),
        (None, {}, token.generate("red"), "red"),
        (None, {}, "", "default"),
        (None, {}, "something-else", "default"),
    ],
    # A token is another one in each process of the suite, and ids must agree.
    ids=["named in the call", "named in the environment", "named by the token", "no token", "no token's name"],
)
def test_the_project_is_the_tokens_where_none_is_named(
    project: str | None, environ: dict[str, str], shown: str, expected: str
) -> None:
    assert resolve_project(project, environ, Credentials(shown)) == expected
