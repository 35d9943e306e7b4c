"""What a project has beside a name that it does not have."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_MOST = 3


def suggestion(wanted: str, known: Sequence[str]) -> str:
    """Return the names that may have been meant; where none is near, the first that there are; '' without any."""
    if close := difflib.get_close_matches(wanted, known, n=_MOST):
        return f"did you mean {' or '.join(map(repr, close))}?"
    if not known:
        return ""
    shown = ", ".join(map(repr, known[:_MOST]))
    more = f" and {len(known) - _MOST} more" if len(known) > _MOST else ""
    return f"there {'is' if len(known) == 1 else 'are'} {shown}{more}"
