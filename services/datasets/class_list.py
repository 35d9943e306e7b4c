"""The classes of a segmentation by index: one a line, with or without its colour.

`classes.txt` or `label_colors.txt` says `name`, `name R G B` or `R G B name`; CVAT's `labelmap.txt` says
`name:R,G,B:parts:actions`. A colour named `ignore` or `void` marks pixels not to be learned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from services.datasets.limits import MIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.source import IGNORED_PIXEL
from services.datasets.text_file import read_text
from services.datasets.tree import Tree

FILES = ("classes.txt", "label_colors.txt", "labelmap.txt", "class_names.txt")
_MAX_BYTES = MIB
_NO_COLOUR = 1 << 24
# Longer than any name may be; matching a line of a million spaces would take hours.
_MAX_LINE = 500
_IGNORED_NAMES = frozenset({"ignore", "ignored", "void"})
_TRIPLE = r"(?P<r>\d{1,3})[\s,]+(?P<g>\d{1,3})[\s,]+(?P<b>\d{1,3})"
_FORMS = (
    re.compile(rf"(?P<name>[^:]*):{_TRIPLE}(:.*)?"),
    re.compile(rf"{_TRIPLE}[\s,]+(?P<name>.*)"),
    re.compile(rf"(?P<name>.*?)[\s,]+{_TRIPLE}"),
)


@dataclass(frozen=True, slots=True)
class ClassList:
    """Names by index and, where the file gives colours, the index of each colour 0xRRGGBB."""

    names: tuple[str, ...]
    colours: dict[int, int] | None


def find_class_list(tree: Tree) -> str | None:
    """Return the file that names the classes, the one nearest to the root."""
    found = [name for name in tree.files if PurePosixPath(name).name in FILES]
    return min(found, key=lambda name: (name.count("/"), FILES.index(PurePosixPath(name).name)), default=None)


def read_class_list(tree: Tree, name: str, problems: Problems) -> ClassList | None:
    """Parse a list of classes, or return None after naming what is wrong."""
    text = read_text(tree, name, problems, max_bytes=_MAX_BYTES)
    if text is None:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    parsed = [_parse(line) for line in lines]
    coloured = [(label, colour) for label, colour in parsed if colour is not None]
    if coloured and len(coloured) < len(parsed):
        text = f"gives {len(coloured)} of {len(parsed)} classes a colour; give all of them one, or none"
        problems.add(ProblemKind.CLASS, name, text)
        return None
    classes = [label for label, _ in parsed if not (coloured and label.lower() in _IGNORED_NAMES)]
    colours = [colour for _, colour in coloured]
    if not classes or not all(classes) or _repeats(classes) or _repeats(colours) or _NO_COLOUR in colours:
        text = "needs at least one class, and every name and colour only once, with values of 0 to 255"
        problems.add(ProblemKind.CLASS, name, text)
        return None
    index = {label: n for n, label in enumerate(classes)}
    by_colour = {colour: index.get(label, IGNORED_PIXEL) for label, colour in coloured}
    return ClassList(tuple(classes), by_colour or None)


def _parse(line: str) -> tuple[str, int | None]:
    if len(line) > _MAX_LINE:
        return line, None
    for form in _FORMS:
        if match := form.fullmatch(line):
            red, green, blue = (int(match[side]) for side in "rgb")
            is_colour = max(red, green, blue) <= 255
            return match["name"].strip(), red << 16 | green << 8 | blue if is_colour else _NO_COLOUR
    return line, None


def _repeats(items: Sequence[str | int]) -> bool:
    return len(set(items)) < len(items)
