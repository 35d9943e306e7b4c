"""CelebA: pictures in one folder, attributes of 1 and -1, people by number, and the official split.

`list_attr_celeba.txt` begins with a count and the names; `list_eval_partition.txt` says 0, 1 or 2 for
train, val and test; `identity_CelebA.txt` names a person an image. For family `face` the people are
needed and landmarks kept, for `images` whatever else is there is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from services.datasets.limits import MIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.source import SPLITS, Landmarks, Reading, SourceDataset, SourceImage
from services.datasets.text_file import read_lines
from services.datasets.tree import Tree

FORMAT = "celeba"
_ATTRIBUTES, _PEOPLE, _PARTITION = "list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"
_ALIGNED, _WILD = "list_landmarks_align_celeba.txt", "list_landmarks_celeba.txt"
_MAX_BYTES = 256 * MIB
_MAX_ATTRIBUTES = 1000
_INTEGER = re.compile(r"-?[0-9]{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Attributes:
    """Names, and a row of 0 and 1 for every image."""

    names: tuple[str, ...] = ()
    rows: dict[str, tuple[int, ...]] | None = None


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds images and one of CelebA's lists."""
    return bool(tree.images) and any(_find(tree, name) for name in (_ATTRIBUTES, _PEOPLE, _PARTITION))


def read(reading: Reading) -> SourceDataset:
    """List the images with what the lists say of them; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    attributes = _attributes(tree, problems)
    people = _column(tree, _PEOPLE, problems)
    partition = _column(tree, _PARTITION, problems)
    landmarks = _landmarks(tree, problems) if reading.family == "face" else {}
    if reading.family == "face" and not people:
        problems.add(ProblemKind.LAYOUT, _PEOPLE, "not found or empty; add it, or import with family 'images'")
    identities = tuple(sorted(set(people.values()))) if reading.family == "face" else ()
    labels = {person: label for label, person in enumerate(identities)}
    listed = set(people if reading.family == "face" else attributes.rows or partition or people)
    by_name = {PurePosixPath(name).name: name for name in tree.images}
    for missing in sorted(listed - set(by_name)):
        problems.add(ProblemKind.MISSING_IMAGE, missing, "is in the lists but not in the dataset; add the image")
    images = []
    for short in sorted(listed & set(by_name)):
        name = by_name[short]
        row = () if attributes.rows is None else attributes.rows.get(short)
        if row is None:
            problems.add(ProblemKind.LABEL, short, f"is not in {_ATTRIBUTES}; use the file as it was published")
            continue
        split = _split(short, partition, problems)
        label = labels.get(people.get(short, "")) if identities else None
        points = landmarks.get(short, ())
        images.append(SourceImage(name, tree.path(name), name, split, label=label, attributes=row, landmarks=points))
    ignored = {"images no list names": len(tree.images) - len(listed & set(by_name))}
    return SourceDataset(FORMAT, identities, tuple(images), ignored, family=reading.family, attributes=attributes.names)


def _find(tree: Tree, name: str) -> str | None:
    return next((found for found in tree.with_suffix(".txt") if PurePosixPath(found).name == name), None)


def _attributes(tree: Tree, problems: Problems) -> _Attributes:
    name = _find(tree, _ATTRIBUTES)
    if name is None:
        return _Attributes()
    lines = read_lines(tree, name, problems, max_bytes=_MAX_BYTES)
    # Some copies leave the count out.
    head = lines[1:] if lines and len(lines[0][1]) == 1 and lines[0][1][0].isdigit() else lines
    names = tuple(head[0][1]) if head else ()
    if not names or len(names) > _MAX_ATTRIBUTES or len(set(names)) < len(names):
        text = "must begin with the number of images, then a line with the names of the attributes, each once"
        problems.add(ProblemKind.BROKEN_FILE, name, text)
        return _Attributes()
    rows: dict[str, tuple[int, ...]] = {}
    for where, (image, *values) in head[1:]:
        if len(values) != len(names) or not set(values) <= {"1", "-1", "0"}:
            text = f"needs {len(names)} values of 1 and -1 after the image's name; use the file as it was published"
            problems.add(ProblemKind.BROKEN_FILE, where, text)
        else:
            rows[image] = tuple(int(value == "1") for value in values)
    return _Attributes(names, rows)


def _column(tree: Tree, wanted: str, problems: Problems) -> dict[str, str]:
    """Return the second word of each line by the first; empty where the list is missing."""
    name = _find(tree, wanted)
    found = {}
    for where, words in read_lines(tree, name, problems, max_bytes=_MAX_BYTES) if name else ():
        if len(words) != 2:
            problems.add(ProblemKind.BROKEN_FILE, where, "needs an image's name and one value; correct the line")
        else:
            found[words[0]] = words[1]
    return found


def _landmarks(tree: Tree, problems: Problems) -> dict[str, Landmarks]:
    """Return five points an image, of the list that was made for these pictures: aligned ones or as they were found."""
    name = _find(tree, _ALIGNED if any("align" in image for image in tree.images) else _WILD)
    found: dict[str, Landmarks] = {}
    for where, (image, *values) in read_lines(tree, name, problems, max_bytes=_MAX_BYTES) if name else ():
        if "." not in image:  # the count, and the names of the columns
            continue
        numbers = [int(value) for value in values if _INTEGER.fullmatch(value)]
        if len(values) != 10 or len(numbers) != 10:
            text = "needs ten whole numbers, x and y of five points, after the image's name; correct the line"
            problems.add(ProblemKind.BROKEN_FILE, where, text)
        else:
            found[image] = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return found


def _split(image: str, partition: dict[str, str], problems: Problems) -> str:
    if not partition:
        return ""
    number = partition.get(image)
    if number not in ("0", "1", "2"):
        text = f"has {number!r} in {_PARTITION}; must be 0, 1 or 2 for train, val and test"
        problems.add(ProblemKind.SPLIT, image, text)
        return ""
    return SPLITS[int(number)]
