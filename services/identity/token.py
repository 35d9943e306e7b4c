"""The text of an API token, `ty_<project>_<id>_<secret>`: project and id are public, the secret is not.

The project is in it so that a client knows its own; what counts is the row of the id. A secret has 256
random bits, so that its plain sha256 is all that needs to be stored.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from services.core import names
from services.core.ids import new_id

_FORM = re.compile(rf"ty_({names.SLUG.pattern})_([a-z0-9]{{1,26}})_([A-Za-z0-9-]{{32,128}})")
_ANYWHERE = re.compile(r"ty_[a-z0-9-]+_[a-z0-9]+_[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """The parts of a token; of the secret only its digest."""

    project: str
    id: str
    sha256: str


def generate(project: str, token_id: str = "") -> str:
    """Return a fresh token."""
    return f"ty_{project}_{token_id or new_id()}_{secrets.token_hex(32)}"


def parse(text: str) -> ParsedToken | None:
    """Return the parts of a token, or None where the text is none."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return ParsedToken(match[1], match[2], hashlib.sha256(match[3].encode()).hexdigest())


def redact(text: str) -> str:
    """Return the text with the secrets of tokens taken out."""
    return _ANYWHERE.sub("ty_***", text)
