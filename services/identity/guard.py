"""The middleware in front of every call: who calls, may they, of which project, and the record of it.

There is no anonymous way in. An rpc without an entry in the table of roles is refused like any other
that the caller has no right to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from services.core.errors import PermissionDenied, PlatformError, Unauthenticated
from services.db import audit
from services.db.audit import AuditLine, Pending
from services.identity import token as tokens
from services.identity.access import ACCESS, OPEN, Rule
from services.identity.authenticator import Authenticator, Principal, TokenEnded
from services.identity.scope import confine, resource_of
from services.identity.sessions import Sessions
from services.identity.trail import Trail
from services.rpc.middleware import Call, Context, Proceed

HEADER = "authorization"
SCHEME = "Bearer "
MAX_RESOURCE = 300
_NOTHING_SHOWN = (
    "the call carries no token: set TRAINYARD_TOKEN or TRAINYARD_TOKEN_FILE, or send the metadata "
    "`authorization: Bearer <token>`; `trainyard admin token create` makes one"
)
_current: ContextVar[Principal | None] = ContextVar("principal", default=None)


def principal() -> Principal:
    """Return who makes the running call.

    Raises:
        Unauthenticated: this is no call of an rpc that needs a token.
    """
    found = _current.get()
    if found is None:
        raise Unauthenticated
    return found


class Guard:
    """Lets a call pass with a token whose role covers the rpc, confined to the token's project."""

    def __init__(self, authenticator: Authenticator, sessions: Sessions, trail: Trail) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._trail = trail

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        if call.method in OPEN:
            return await proceed()
        line = AuditLine(action=call.method, peer=peer_of(call.context), request_id=call.request_id)
        try:
            rule, token, caller = await self._admit(call, line)
            call.request = confine(call.request, rule, caller.project)
            line.resource = _plain(resource_of(call.request, rule))
        except (Unauthenticated, PermissionDenied) as err:
            line.outcome = err.code.name
            self._trail.add(_completed(line, call, err))
            raise
        _current.set(caller)
        with self._recorded(line, rule):
            if call.is_unary:
                return await proceed()
            return await self._sessions.run(token, proceed)

    async def _admit(self, call: Call, line: AuditLine) -> tuple[Rule, tokens.ParsedToken, Principal]:
        text = bearer(call.context)
        if text is None:
            raise Unauthenticated(_NOTHING_SHOWN)
        token = tokens.parse(text)
        if token is None:
            raise Unauthenticated("what the call carries is not a token: one reads ty_<project>_<id>_<secret>")
        caller = await self._authenticator.verify(token)
        line.token_id, line.project = caller.token_id, caller.project
        rule = ACCESS.get(call.method)
        if rule is None:
            raise PermissionDenied(f"{call.method} is not open to any role")
        if not caller.role.covers(rule.role):
            raise PermissionDenied(
                f"this needs the role {rule.role}, and token {caller.token_id} is a {caller.role}; make another with "
                f"`trainyard admin token create --project {caller.project} --role {rule.role}`"
            )
        return rule, token, caller

    @contextmanager
    def _recorded(self, line: AuditLine, rule: Rule) -> Iterator[None]:
        """Record an audited call: its own transaction carries the line of a success, all else follows."""
        pending = Pending(line) if rule.is_audited else None
        audit.pending.set(pending)
        try:
            yield
        except PermissionDenied as err:
            # A name of another project in the middle of a stream.
            line.outcome = err.code.name
            self._trail.add(line)
            raise
        except BaseException as err:
            if pending is not None:
                line.outcome = _outcome(err)
                self._trail.add(line)
            raise
        if pending is not None and not pending.is_stored:
            self._trail.add(line)


def bearer(context: Context) -> str | None:
    """Return the token a call carries; None where it carries none or several."""
    found = [value for key, value in context.invocation_metadata() or () if key == HEADER]
    if len(found) != 1 or not isinstance(found[0], str) or not found[0].startswith(SCHEME):
        return None
    return found[0].removeprefix(SCHEME)


def peer_of(context: Context) -> str:
    """Return the address a call comes from, with the name in its certificate where it showed one."""
    names = context.auth_context().get("x509_common_name", ())
    return " ".join([context.peer() or "", *(name.decode(errors="replace") for name in names)])[:MAX_RESOURCE]


def _completed(line: AuditLine, call: Call, err: PlatformError) -> AuditLine:
    """Return the line of a refused call with whose token it showed and what it was aimed at, where that is known."""
    if isinstance(err, TokenEnded) and err.of is not None:
        line.token_id, line.project = err.of.token_id, err.of.project
    if line.token_id and (rule := ACCESS.get(call.method)) is not None:
        line.resource = _plain(resource_of(call.request, rule))
    return line


def _outcome(err: BaseException) -> str:
    if isinstance(err, PlatformError):
        return err.code.name
    return "CANCELLED" if isinstance(err, asyncio.CancelledError) else "INTERNAL"


def _plain(resource: str) -> str:
    return tokens.redact(resource[:MAX_RESOURCE])
