"""Pairs of images of one size: what is put in lies under `A/`, what is to come out under `B/`, by equal stems.

`A/train/1.jpg` with `B/train/1.png`, or `train/A/1.jpg` with `train/B/1.png`; without splits one is still to be chosen.
`input/` and `target/` are read like `A/` and `B/`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from services.datasets.image_folder import ignored_files
from services.datasets.problem import ProblemKind, Problems
from services.datasets.source import Reading, SourceDataset, SourceImage, SourceTarget
from services.datasets.tree import Tree, split_of

FORMAT = "aligned"
INPUT, TARGET = "a", "b"
_SIDES = {"a": INPUT, "input": INPUT, "inputs": INPUT, "b": TARGET, "target": TARGET, "targets": TARGET}
"""By the names of folders."""

Key = tuple[str, ...]


def is_like(tree: Tree) -> bool:
    """Tell whether every image lies under `A` or under `B` and most stems occur under both."""
    sides = [side_of(name) for name in tree.images]
    inputs, targets = ({_key(name) for name in _under(tree, side)} for side in (INPUT, TARGET))
    return None not in sides and 2 * len(inputs & targets) > min(len(inputs), len(targets)) > 0


def has_side(tree: Tree) -> bool:
    """Tell whether some images lie under `A` or `B`."""
    return any(side_of(name) for name in tree.images)


def side_of(name: str) -> str | None:
    """Return which of the two folders an image lies under."""
    return next((_SIDES[part.lower()] for part in PurePosixPath(name).parts[:-1] if part.lower() in _SIDES), None)


def read(reading: Reading) -> SourceDataset:
    """Pair the images of `A` with those of `B`; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    for name in tree.images:
        if side_of(name) is None:
            problems.add(ProblemKind.LAYOUT, name, "lies neither under A/ nor under B/; move it into one of them")
    inputs, targets = _by_key(tree, INPUT, problems), _by_key(tree, TARGET, problems)
    images = []
    for key, name in inputs.items():
        if key not in targets:
            _miss(problems, name, missing="B", own="A")
            continue
        other = targets[key]
        images.append(
            SourceImage(name, tree.path(name), name, _split(key), target=SourceTarget(other, tree.path(other)))
        )
    for key in sorted(set(targets) - set(inputs)):
        _miss(problems, targets[key], missing="A", own="B")
    return SourceDataset(FORMAT, (), tuple(images), ignored_files(tree), family="pairs")


def _miss(problems: Problems, name: str, *, missing: str, own: str) -> None:
    stem = PurePosixPath(name).stem
    text = f"has no partner; add {stem} under {missing}/ in the same split or remove it from {own}/"
    problems.add(ProblemKind.MISSING_IMAGE, name, text)


def _under(tree: Tree, side: str) -> list[str]:
    return [name for name in tree.images if side_of(name) == side]


def _by_key(tree: Tree, side: str, problems: Problems) -> dict[Key, str]:
    found: dict[Key, str] = {}
    for name in _under(tree, side):
        known = found.setdefault(_key(name), name)
        if known != name:
            text = f"has the stem of {known}; which of them has the partner? Rename or remove one"
            problems.add(ProblemKind.PAIR, name, text)
    return found


def _key(name: str) -> Key:
    """Return what two partners have in common: their folders without that of the side, and the stem."""
    path = PurePosixPath(name)
    folders = list(path.parts[:-1])
    place = next((n for n, part in enumerate(folders) if part.lower() in _SIDES), None)
    if place is not None:
        del folders[place]
    return (*folders, path.stem)


def _split(key: Key) -> str:
    first, *rest = key
    return (split_of(first) or "") if rest else ""
