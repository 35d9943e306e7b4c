"""Tokens for tests: of a database, of a state directory, and on channels of raw stubs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from services.core.ids import new_id
from services.core.roles import Role
from services.db import projects, tokens
from services.db.database import Database
from services.db.tokens import NewToken
from services.identity import token as token_text
from services.identity.bootstrap import LOCAL_FILE


def admit(
    database: Database, project: str = "default", role: Role = Role.ADMIN, *, lifetime_seconds: float | None = None
) -> str:
    """Make a project where it is missing and a token of it, and return the token."""
    text = token_text.generate(project, new_id())
    parsed = token_text.parse(text)
    assert parsed is not None
    with database.write() as session:
        projects.ensure(session, project)
        new = NewToken(
            id=parsed.id, project=project, role=role, sha256=parsed.sha256, lifetime_seconds=lifetime_seconds
        )
        tokens.insert(session, new)
    return text


def token_id(text: str) -> str:
    parsed = token_text.parse(text)
    assert parsed is not None
    return parsed.id


def local_token(state_dir: Path) -> str:
    """Return the token that `services.up.migrate --local-token` keeps in a state directory."""
    return (state_dir / LOCAL_FILE).read_text().strip()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that shows the token."""
    return (("authorization", f"Bearer {token}"),)


def showing(channel: grpc.Channel, token: str) -> grpc.Channel:
    """Return a channel that shows the token with every call."""
    shown: grpc.Channel = grpc.intercept_channel(channel, _Showing(token))
    return shown


class _Details(grpc.ClientCallDetails):
    def __init__(self, details: grpc.ClientCallDetails, metadata: tuple[tuple[str, str], ...]) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = (*(details.metadata or ()), *metadata)
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class _Showing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, token: str) -> None:
        self._metadata = bearer(token)

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(_Details(details, self._metadata), request)

    intercept_unary_stream = intercept_unary_unary
    intercept_stream_unary = intercept_unary_unary
    intercept_stream_stream = intercept_unary_unary
