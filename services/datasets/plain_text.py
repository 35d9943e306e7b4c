"""Plain text to learn a language from: `.txt` files in UTF-8, a sentence a line or one running text.

A file's own name or its folder says its split: `train.txt`, `val/novel.txt`. Where none does, a share of the lines is
set aside; of a running text, which has blank lines or fewer than ten in all, the tail.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from services.datasets.problem import ProblemKind
from services.datasets.source import Reading, SourceTexts
from services.datasets.texts import is_too_large, joined, read_file
from services.datasets.tree import Tree, split_of_path

FORMAT = "plain_text"
_SUFFIX = ".txt"
_ABOUT = ("readme", "license", "licence", "copying")
# A data set of boxes whose images are missing is no text.
_OTHERS = frozenset({"labels", "annotations", "classes", "pairs", "notes", "obj"})


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds text files and nothing else."""
    files = [PurePosixPath(name) for name in tree.files if not _is_about(name)]
    if not files or any(path.suffix.lower() != _SUFFIX for path in files):
        return False
    words = {word.lower() for path in files for word in (*path.parts[:-1], path.stem)}
    return not words & _OTHERS


def read(reading: Reading) -> SourceTexts:
    """Read every text file of the tree; what is wrong goes to the problems."""
    names = [name for name in reading.tree.with_suffix(_SUFFIX) if not _is_about(name)]
    left_out = len(reading.tree.files) - len(names)
    if not names:
        reading.problems.add(ProblemKind.LAYOUT, "dataset", "no .txt file; add train.txt, a text in UTF-8")
    parts: dict[str, list[list[str]]] = defaultdict(list)
    if not is_too_large(reading, names):
        for name in names:
            if (lines := read_file(reading, name)) is not None:
                parts[split_of_path(name) or ""].append(lines)
    ignored = {"files that are no .txt, or say what the data is": left_out} if left_out else {}
    return SourceTexts(FORMAT, "text", joined(parts), ignored)


def _is_about(name: str) -> bool:
    """Tell whether a file says what the data is, rather than being part of it."""
    return PurePosixPath(name).stem.lower() in _ABOUT
