"""What a driver says of a database that does not answer, in one line that may stand in a log."""

from __future__ import annotations

import inspect
import re

from services.core.errors import DatabaseUnavailable

_ADDRESS = re.compile(r"\w[\w+]*://\S*")


def unavailable(err: BaseException, *, password: str | None) -> DatabaseUnavailable:
    """Return the error for administrators and logs: the driver's first line tells a wrong password from a dead server.

    It holds neither the database's URL nor its password. Callers of the API are told none of it.
    """
    said = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
    said = _ADDRESS.sub("...", said)
    if password:
        said = re.sub(rf"(?<!\w){re.escape(password)}(?!\w)", "...", said)
    what = (inspect.getdoc(DatabaseUnavailable) or "").removesuffix(".")
    return DatabaseUnavailable(f"{what}: {said}")
