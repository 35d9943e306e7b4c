"""Everything wrong with a dataset, collected so that a person can repair it in one pass."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.core.errors import DatasetInvalid, Violation

MAX_LISTED = 50
_MAX_ALIKE = 3
_MAX_FIELD = 300
_MAX_DESCRIPTION = 600


class ProblemKind(enum.Enum):
    """What sort of thing is wrong; the value is the plural a summary prints."""

    ARCHIVE = "archive problems"
    LAYOUT = "layout problems"
    BROKEN_FILE = "unreadable annotation files"
    ANNOTATION = "malformed annotations"
    CLASS = "class problems"
    MISSING_IMAGE = "missing images"
    IMAGE = "unusable images"
    BOX = "invalid boxes"
    MASK = "unusable masks"
    PAIR = "unfit pairs"
    LABEL = "labelling problems"
    TABLE = "malformed tables"
    TEXT = "unusable texts"
    WEIGHTS = "unusable weights"
    SPLIT = "split problems"


@dataclass(slots=True)
class _Alike:
    """One thing wrong in many places, of which the first few are kept."""

    description: str
    fields: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.fields) < _MAX_ALIKE:
            self.fields.append(_printable(place, _MAX_FIELD))

    def violations(self) -> list[Violation]:
        """Return one violation a place, or one for all of them where a person would read the same line too often."""
        if self.count <= _MAX_ALIKE:
            return [Violation(place, self.description) for place in self.fields]
        first, *others = self.fields
        text = f"{self.description} (and {self.count - 1} more like it, such as {', '.join(others)})"
        return [Violation(first, text, count=self.count)]


class Problems:
    """Counts every problem and lists the first 50, so that a hopeless dataset cannot fill memory.

    What is wrong in the same words in many places is listed once.
    """

    def __init__(self) -> None:
        self._alike: dict[str, _Alike] = {}
        self._totals: Counter[ProblemKind] = Counter()

    def add(self, kind: ProblemKind, field: str, description: str) -> None:
        self._totals[kind] += 1
        text = _printable(description, _MAX_DESCRIPTION)
        if text in self._alike or len(self._alike) < MAX_LISTED:
            self._alike.setdefault(text, _Alike(text)).add(field)

    @property
    def total(self) -> int:
        return self._totals.total()

    def violations(self) -> list[Violation]:
        """Return the listed problems, and one more entry that says how many are not listed."""
        listed: list[Violation] = []
        hidden = self.total
        for alike in self._alike.values():
            found = alike.violations()
            if len(listed) + len(found) > MAX_LISTED:
                break
            listed += found
            hidden -= alike.count
        if not hidden:
            return listed
        note = f"{hidden} more problems are not listed; repair the listed ones and import again"
        return [*listed, Violation("dataset", note, count=hidden)]

    def summary(self) -> str:
        parts = ", ".join(f"{count} {kind.value}" for kind, count in self._totals.most_common())
        first = next(iter(self._alike.values()))
        return f"The dataset cannot be imported: {parts}. First: {first.fields[0]}: {first.description}"

    def raise_if_any(self) -> None:
        """Raise DatasetInvalid with every problem found so far."""
        if self.total:
            raise DatasetInvalid(self.summary(), violations=self.violations())


def invalid(field: str, description: str) -> DatasetInvalid:
    """Return the error for one problem that ends the import at once."""
    violation = Violation(_printable(field, _MAX_FIELD), _printable(description, _MAX_DESCRIPTION))
    return DatasetInvalid(
        f"The dataset cannot be imported: {violation.field}: {violation.description}", violations=[violation]
    )


def listing(names: Sequence[str], limit: int = 5) -> str:
    """Return the first few names for a sentence."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _printable(text: str, limit: int) -> str:
    """Return text fit for a terminal and a log: a stranger's names may hold control characters."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."
