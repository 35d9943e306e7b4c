"""Strangers' text files: read within bounds, every line with its number."""

from __future__ import annotations

from collections.abc import Iterator

from services.datasets.limits import MIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.tree import Tree


def read_lines(tree: Tree, name: str, problems: Problems, *, max_bytes: int) -> list[tuple[str, list[str]]]:
    """Return the words of every line that is not blank, with the line's place; nothing where the file is unreadable."""
    text = read_text(tree, name, problems, max_bytes=max_bytes)
    return list(_lines(name, text)) if text is not None else []


def read_text(tree: Tree, name: str, problems: Problems, *, max_bytes: int) -> str | None:
    """Return the file as text, or None after naming the problem."""
    path = tree.path(name)
    if path.stat().st_size > max_bytes:
        problems.add(ProblemKind.BROKEN_FILE, name, f"larger than {max_bytes // MIB} MiB; this is no list of that kind")
        return None
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problems.add(ProblemKind.BROKEN_FILE, name, "not UTF-8 text; export it again")
        return None


def _lines(name: str, text: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield f"{name}: line {number}", words
