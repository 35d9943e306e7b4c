"""Images in a folder a class: `train/cat/1.jpg`, or `cat/1.jpg` where the split is still to be chosen.

The class is the first folder below the split, in order of name; deeper folders mean nothing. Images
without any class are a dataset to generate from.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePosixPath

from services.datasets.problem import ProblemKind, Problems, listing
from services.datasets.source import Reading, SourceDataset, SourceImage
from services.datasets.tree import OTHER_IMAGE_SUFFIXES, SPLIT_WORDS, Tree

FORMAT = "image_folder"
_TYPO = 0.75


@dataclass(frozen=True, slots=True)
class Placed:
    """An image by its split, '' where none is stated, and the folders below it."""

    name: str
    split: str
    folders: tuple[str, ...]


def read(reading: Reading) -> SourceDataset:
    """List the images of the tree by class; what is wrong goes to the problems."""
    if reading.family == "images" and not all(item.folders for item in place_images(reading.tree, Problems())):
        return _unlabelled(reading)
    remedy = "move it into one, or import with family 'images' to generate from it"
    classes, images = labelled_images(reading, remedy=remedy)
    return SourceDataset(FORMAT, classes, images, ignored_files(reading.tree), family=reading.family)


def labelled_images(reading: Reading, *, remedy: str) -> tuple[tuple[str, ...], tuple[SourceImage, ...]]:
    """Return the names of the class folders and every image with the index of its own."""
    placed = place_images(reading.tree, reading.problems)
    for item in placed:
        if not item.folders:
            reading.problems.add(ProblemKind.LAYOUT, item.name, f"lies in no class folder; {remedy}")
    named = [item for item in placed if item.folders]
    classes = tuple(sorted({item.folders[0] for item in named}))
    index = {name: label for label, name in enumerate(classes)}
    return classes, tuple(_source(reading.tree, item, index[item.folders[0]]) for item in named)


def is_like(tree: Tree) -> bool:
    """Tell whether every image lies in a class folder, of which there are several, and nothing annotates them."""
    placed = place_images(tree, Problems())
    return all(item.folders for item in placed) and len({item.folders[:1] for item in placed}) > 1


def has_images(tree: Tree) -> bool:
    """Tell whether the tree holds any image."""
    return bool(tree.images)


def place_images(tree: Tree, problems: Problems) -> list[Placed]:
    """Return every image with its split; top folders are splits if any of them is called one."""
    names = [PurePosixPath(name) for name in tree.images]
    skipped = 1 if names and all(len(path.parts) > 1 and path.parts[0].lower() == "images" for path in names) else 0
    tops = sorted({path.parts[skipped] for path in names if len(path.parts) > skipped + 1})
    splits = {top: split for top in tops if (split := SPLIT_WORDS.get(top.lower().rstrip("0123456789"))) is not None}
    if splits:
        _refuse_other_tops(tops, splits, problems)
    found = []
    for path in names:
        top, *rest = path.parts[skipped:]
        folders = tuple(rest[:-1]) if top in splits and rest else (top, *rest)[:-1]
        found.append(Placed(path.as_posix(), splits.get(top, ""), folders))
    return found


def ignored_files(tree: Tree) -> dict[str, int]:
    """Count image files of formats that are not read."""
    return {f"images that are no JPEG, PNG or WEBP ({suffix})": count for suffix, count in _others(tree).items()}


def _refuse_other_tops(tops: list[str], splits: dict[str, str], problems: Problems) -> None:
    for top in tops:
        if top in splits:
            continue
        close = difflib.get_close_matches(top.lower(), SPLIT_WORDS, n=1, cutoff=_TYPO)
        remedy = f"did you mean {close[0]!r}?" if close else "move it into one of them or remove it"
        problems.add(ProblemKind.LAYOUT, top, f"is no split, but lies beside {listing(sorted(splits))}; {remedy}")


def _unlabelled(reading: Reading) -> SourceDataset:
    placed = place_images(reading.tree, reading.problems)
    mixed = [item.name for item in placed if item.folders]
    if mixed:
        text = f"lies in a folder while {len(placed) - len(mixed)} images lie in none; give all images a folder or none"
        reading.problems.add(ProblemKind.LAYOUT, mixed[0], text)
    images = tuple(_source(reading.tree, item, None) for item in placed)
    return SourceDataset(FORMAT, (), images, ignored_files(reading.tree), family="images")


def _source(tree: Tree, item: Placed, label: int | None) -> SourceImage:
    return SourceImage(item.name, tree.path(item.name), item.name, item.split, label=label)


def _others(tree: Tree) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in tree.with_suffix(*OTHER_IMAGE_SUFFIXES):
        suffix = PurePosixPath(name).suffix.lower()
        counts[suffix] = counts.get(suffix, 0) + 1
    return counts
