"""Pairs of texts to learn a translation from, in UTF-8: a line is a source, its target, and nothing else.

Either `.tsv` files of lines `source<TAB>target`, or two files of equally many lines that differ in their suffix alone,
`train.src` and `train.tgt`. A file's own name or its folder says its split, as it does for plain text.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from services.datasets.problem import ProblemKind
from services.datasets.source import Reading, SourceTexts
from services.datasets.texts import is_too_large, joined, read_file
from services.datasets.tree import Tree, split_of_path

FORMAT = "parallel_text"
_TABLE, _SOURCE, _TARGET = ".tsv", ".src", ".tgt"


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds tables of two columns by their name, or sources with targets, and no images."""
    return not tree.images and bool(tree.with_suffix(_TABLE, _SOURCE, _TARGET))


def read(reading: Reading) -> SourceTexts:
    """Read every pair of the tree; what is wrong goes to the problems."""
    tree = reading.tree
    names = tree.with_suffix(_TABLE, _SOURCE, _TARGET)
    if not names:
        text = "no .tsv file and no .src with its .tgt; add train.tsv with lines of source, tab and target"
        reading.problems.add(ProblemKind.LAYOUT, "dataset", text)
    parts: dict[str, list[list[str]]] = defaultdict(list)
    if not is_too_large(reading, names):
        for name in names:
            lines = _of_table(reading, name) if name.lower().endswith(_TABLE) else _of_files(reading, name)
            if lines is not None:
                parts[split_of_path(name) or ""].append(lines)
    left_out = len(tree.files) - len(names)
    ignored = {"files that are no .tsv, .src or .tgt": left_out} if left_out else {}
    return SourceTexts(FORMAT, "parallel_text", joined(parts), ignored)


def _of_table(reading: Reading, name: str) -> list[str] | None:
    if (lines := read_file(reading, name)) is None:
        return None
    rows = [(f"{name}: line {number}", line.split("\t")) for number, line in enumerate(lines, start=1)]
    pairs = []
    for where, cells in rows:
        if len(cells) != 2:
            text = f"has {len(cells) - 1} tabs; write the source, one tab and the target"
            reading.problems.add(ProblemKind.TEXT, where, text)
        elif (pair := _pair(reading, where, *cells)) is not None:
            pairs.append(pair)
    return pairs


def _of_files(reading: Reading, name: str) -> list[str] | None:
    """Read a source with its target; told the target, do nothing but see that its source is there."""
    path = PurePosixPath(name)
    is_source = path.suffix.lower() == _SOURCE
    other = _partner(reading.tree, path, _TARGET if is_source else _SOURCE)
    if other is None:
        wanted = path.with_suffix(_TARGET if is_source else _SOURCE).name
        reading.problems.add(ProblemKind.TEXT, name, f"has no {wanted} beside it; add the file of the same lines")
    if not is_source or other is None:
        return None
    sources, targets = read_file(reading, name), read_file(reading, other)
    if sources is None or targets is None:
        return None
    if len(sources) != len(targets):
        text = f"has {len(sources)} lines, {PurePosixPath(other).name} has {len(targets)}; give both the same"
        reading.problems.add(ProblemKind.TEXT, name, text)
        return None
    pairs = []
    for number, cells in enumerate(zip(sources, targets, strict=True), start=1):
        where = f"{name}: line {number}"
        if any("\t" in cell for cell in cells):
            reading.problems.add(ProblemKind.TEXT, where, "holds a tab, here or in the target; write a space")
        elif (pair := _pair(reading, where, *cells)) is not None:
            pairs.append(pair)
    return pairs


def _partner(tree: Tree, path: PurePosixPath, suffix: str) -> str | None:
    return next(
        (one for one in tree.with_suffix(suffix) if PurePosixPath(one).with_suffix("") == path.with_suffix("")), None
    )


def _pair(reading: Reading, where: str, source: str, target: str) -> str | None:
    source, target = source.strip(), target.strip()
    if not source or not target:
        text = f"has no {'target' if source else 'source'}; complete the pair, or remove it"
        reading.problems.add(ProblemKind.TEXT, where, text)
        return None
    return f"{source}\t{target}"
