"""What an answer may be: any status but a fault of the server, and no word of its insides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import text_format
from grpc_status import rpc_status

# Of our own code, its libraries and its machine; none of it helps a caller, all of it helps an attacker.
_LEAKS = re.compile(
    r"/(?:home|root|tmp|usr|var|work|srv|opt|proc|dev)/[\w.-]+"
    r"|\b[\w/]+\.py\b"
    r"|Traceback|sqlalchemy|psycopg|sqlite3?\b|alembic|asyncio\."
    r"|\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|PRAGMA)\s+\w+"
    r"|object at 0x|<class '|<built-in|NoneType|Error\(|\bline \d+, in\b"
)
_FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
# Of parts that run beside the server under test; a request must not make it believe that they are away.
_FAULT_REASONS = ("DATABASE_UNAVAILABLE", "STORAGE_UNAVAILABLE", "BROKER_UNAVAILABLE")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call ended."""

    code: grpc.StatusCode
    said: str = ""
    """Everything readable of the answer: message, details and trailers."""


def outcome_of(error: grpc.RpcError) -> Outcome:
    """Return what a refused call said."""
    try:
        status = rpc_status.from_call(error)
    except ValueError as err:
        # A status that disagrees with itself is no answer.
        return Outcome(grpc.StatusCode.UNKNOWN, f"the details of the status are broken: {err}")
    parts = [error.details() or ""]
    for detail in status.details if status is not None else ():
        parts.append(text_format.MessageToString(detail, as_utf8=True))
    parts += [f"{key}={value!r}" for key, value in error.trailing_metadata() or () if not key.endswith("-bin")]
    return Outcome(error.code(), "\n".join(parts))


def faults(outcome: Outcome, sent: Sequence[bytes], secrets: Sequence[str] = ()) -> list[str]:
    """Return what is wrong with an answer to `sent`; what the caller wrote himself may come back to him."""
    found = []
    if outcome.code in _FAULTS:
        found.append(f"{outcome.code.name}: {outcome.said[:300]}")
    found += [f"blames {reason}" for reason in _FAULT_REASONS if f'reason: "{reason}"' in outcome.said]
    own = b"\n".join(sent).decode(errors="replace")
    shown = own + repr(own)
    found += [f"leaks {match}" for match in leaks(outcome.said, secrets) if match not in shown]
    return found


def leaks(text: str, secrets: Sequence[str] = ()) -> list[str]:
    """Return what a text tells of the inside."""
    return [match.group() for match in _LEAKS.finditer(text)] + [secret for secret in secrets if secret in text]
