"""The first token: from a file that an operator keeps, or one that this machine keeps for itself."""

from __future__ import annotations

import os
from pathlib import Path

from services.core.ids import new_id
from services.core.names import DEFAULT_PROJECT
from services.core.roles import Role
from services.db import audit, tokens
from services.db.audit import AuditLine
from services.db.database import Database
from services.db.tokens import NewToken, Token
from services.identity import token as token_text
from services.identity.token import ParsedToken

LOCAL_FILE = "token"


class BootstrapInvalid(Exception):
    """The file of the first token cannot be used; the message says why and what belongs in it."""


def bootstrap(database: Database, path: Path) -> Token:
    """Make the token in a file that of an administrator; its project is made where it is missing. Safe to repeat.

    Raises:
        BootstrapInvalid: the file cannot be read, or holds no token.
    """
    try:
        parsed = token_text.parse(path.read_text().strip())
    except (OSError, UnicodeDecodeError) as err:
        raise BootstrapInvalid(f"TRAINYARD_BOOTSTRAP_TOKEN_FILE: {path} cannot be read: {err}") from err
    if parsed is None:
        raise BootstrapInvalid(
            f"{path} holds no token: write ty_<project>_<id>_<secret> into it, such as "
            f"ty_{DEFAULT_PROJECT}_bootstrap_ and 64 random hexadecimal digits"
        )
    return _put(database, parsed, note="bootstrap")


def ensure_local(database: Database, path: Path) -> Token:
    """Return the token of a file that only its owner may read; a missing or ended one is made anew."""
    parsed = _read(path)
    if parsed is not None:
        known = _put(database, parsed, note="this machine")
        if known.revoke_time is None:
            return known
    text = token_text.generate(DEFAULT_PROJECT)
    parsed = token_text.parse(text)
    assert parsed is not None
    _write_private(path, text)
    return _put(database, parsed, note="this machine")


def _put(database: Database, parsed: ParsedToken, *, note: str) -> Token:
    new = NewToken(id=parsed.id, project=parsed.project, role=Role.ADMIN, sha256=parsed.sha256, note=note)
    with database.write() as session:
        before = tokens.find(session, parsed.id)
        stored = tokens.put(session, new)
        if before is None or before.sha256 != parsed.sha256:
            line = AuditLine(
                action="bootstrap", project=parsed.project, token_id=parsed.id, resource=f"tokens/{parsed.id}"
            )
            audit.write(session, [line])
    return stored


def _read(path: Path) -> ParsedToken | None:
    try:
        return token_text.parse(path.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return None


def _write_private(path: Path, text: str) -> None:
    """Replace the file at once; nobody but its owner ever may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{new_id()}")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
