"""Real English that comes with Python: the topics of its `help()`, as one running text."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

_HELD_OUT = 0.1


def write_english(directory: Path, *, seed: int = 0) -> Path:
    """Write `train.txt` and `val.txt`, the last tenth; the same whatever the seed."""
    del seed
    directory.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(topics[name] for name in sorted(topics))
    # Printable ASCII, as of the first edition of the course: a dash more or less must not change the alphabet.
    text = "".join(letter for letter in text if letter == "\n" or " " <= letter <= "~")
    cut = round(len(text) * (1 - _HELD_OUT))
    (directory / "train.txt").write_text(text[:cut], encoding="utf-8")
    (directory / "val.txt").write_text(text[cut:], encoding="utf-8")
    return directory
