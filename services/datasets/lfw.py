"""Labeled Faces in the Wild: `PERSON/PERSON_0001.jpg` and pairs.txt with its folds of pairs.

The first line of pairs.txt counts folds and pairs (`10 300`); then come, fold by fold, as many lines
`person n m` of one person and `person n person m` of two. The people it names are val, all others train,
so that nobody is both learned from and asked about. Without pairs.txt, the one list of pairsDevTest.txt
is dealt into ten folds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from services.datasets.limits import MIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.source import Reading, SourceDataset, SourceImage
from services.datasets.text_file import read_lines
from services.datasets.tree import Tree

FORMAT = "lfw"
_LISTS = ("pairs.txt", "pairsDevTest.txt")
_NUM_FOLDS = 10
_MAX_BYTES = 64 * MIB
_MAX_DIGITS = 8


@dataclass(frozen=True, slots=True)
class _Pair:
    """One line of a list; a face is (person, number)."""

    where: str
    faces: tuple[tuple[str, int], tuple[str, int]]

    @property
    def is_same(self) -> bool:
        return self.faces[0][0] == self.faces[1][0]


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds images and a list of pairs."""
    return bool(tree.images) and _list_name(tree) is not None


def read(reading: Reading) -> SourceDataset:
    """List the images by person, and the pairs; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    name = _list_name(tree)
    if name is None:
        problems.add(ProblemKind.LAYOUT, "pairs.txt", "not found; add it, or import as identity_folders without pairs")
        return SourceDataset(FORMAT, (), (), family="face")
    faces = _faces(tree)
    folds = tuple(tuple(_resolved(fold, faces, problems)) for fold in _folds(tree, name, problems))
    asked = {person for fold in folds for pair in fold for person in (_person(pair[0]), _person(pair[1]))}
    people = tuple(sorted({person for person, _ in faces}))
    index = {person: label for label, person in enumerate(people)}
    images = tuple(
        SourceImage(image, tree.path(image), image, "val" if person in asked else "train", label=index[person])
        for (person, _), image in faces.items()
    )
    if images and not any(image.split == "train" for image in images):
        text = "names every person of the dataset, so that nobody is left to train on; add people it does not name"
        problems.add(ProblemKind.SPLIT, name, text)
    ignored = {"images not named PERSON/PERSON_0001": len(tree.images) - len(images)}
    return SourceDataset(FORMAT, people, images, ignored, family="face", folds=folds)


def _list_name(tree: Tree) -> str | None:
    found = {PurePosixPath(name).name: name for name in tree.with_suffix(".txt")}
    return next((found[name] for name in _LISTS if name in found), None)


def _faces(tree: Tree) -> dict[tuple[str, int], str]:
    """Return the image of each (person, number)."""
    faces = {}
    for name in tree.images:
        path = PurePosixPath(name)
        person, _, number = path.stem.rpartition("_")
        if person and person == path.parent.name and number.isascii() and number.isdigit() and len(number) < 9:
            faces[person, int(number)] = name
    return faces


def _person(image: str) -> str:
    return PurePosixPath(image).parent.name


def _folds(tree: Tree, name: str, problems: Problems) -> list[list[_Pair]]:
    """Return the pairs by fold, after checking that there are as many as the first line says."""
    lines = read_lines(tree, name, problems, max_bytes=_MAX_BYTES)
    head = lines[0][1] if lines else []
    counts = [int(word) for word in head if word.isascii() and word.isdigit() and 0 < len(word) < _MAX_DIGITS]
    if len(counts) not in (1, 2) or len(counts) < len(head) or 0 in counts:
        text = "must begin with the number of folds and of pairs of one person in each, such as `10 300`"
        problems.add(ProblemKind.BROKEN_FILE, name, text)
        return []
    num_folds, num_pairs = counts if len(counts) == 2 else (1, counts[0])
    pairs = [pair for where, words in lines[1:] if (pair := _pair(where, words, problems)) is not None]
    if len(lines) - 1 != 2 * num_folds * num_pairs:
        text = (
            f"announces {2 * num_folds * num_pairs} pairs but lists {len(lines) - 1}; use the file as it was published"
        )
        problems.add(ProblemKind.BROKEN_FILE, name, text)
        return []
    if num_folds == 1:
        return [fold for start in range(_NUM_FOLDS) if (fold := pairs[start::_NUM_FOLDS])]
    size = 2 * num_pairs
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def _pair(where: str, words: list[str], problems: Problems) -> _Pair | None:
    if len(words) == 3:
        words = [words[0], words[1], words[0], words[2]]
    if len(words) != 4 or not all(word.isascii() and word.isdigit() and len(word) < 9 for word in words[1::2]):
        text = "must be `person n m` or `person n person m`; separate by tabs, and write _ for spaces in names"
        problems.add(ProblemKind.BROKEN_FILE, where, text)
        return None
    return _Pair(where, ((words[0], int(words[1])), (words[2], int(words[3]))))


def _resolved(
    fold: list[_Pair], faces: dict[tuple[str, int], str], problems: Problems
) -> Iterator[tuple[str, str, bool]]:
    for pair in fold:
        missing = [face for face in pair.faces if face not in faces]
        for person, number in missing:
            text = f"no image {person}/{person}_{number:04d} in the dataset; add it or import a complete copy"
            problems.add(ProblemKind.MISSING_IMAGE, pair.where, text)
        if not missing:
            yield faces[pair.faces[0]], faces[pair.faces[1]], pair.is_same
