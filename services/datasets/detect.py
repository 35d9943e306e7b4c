"""Which format an unpacked dataset has, and which families of recipes can train on it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from services.core.errors import DatasetInvalid
from services.datasets import coco, image_folder, voc, yolo
from services.datasets.problem import invalid
from services.datasets.source import Reading, SourceDataset, SourcePoints
from services.datasets.tree import OTHER_IMAGE_SUFFIXES, Tree


@dataclass(frozen=True, slots=True)
class Format:
    """One layout an importer reads, and what may be trained on it; the first family is the usual one."""

    read: Callable[[Reading], SourceDataset | SourcePoints]
    is_like: Callable[[Tree], bool]
    families: tuple[str, ...]
    layout: str


# In the order they are tried: the more a layout says about itself, the earlier.
FORMATS: dict[str, Format] = {
    yolo.FORMAT: Format(yolo.read, yolo.is_like, ("detection",), "labels/**/*.txt with data.yaml"),
    coco.FORMAT: Format(coco.read, coco.is_like, ("detection",), "annotations/instances_train.json"),
    voc.FORMAT: Format(voc.read, voc.is_like, ("detection",), "Annotations/*.xml"),
    image_folder.FORMAT: Format(
        image_folder.read, image_folder.is_like, ("classification", "images"), "train/CLASS/*.jpg or CLASS/*.jpg"
    ),
}
FAMILIES = tuple(dict.fromkeys(family for form in FORMATS.values() for family in form.families))

_WORDS = ("annotations", "images", "labels", "masks", "train", "val", "test", "JPEGImages", "ImageSets")
_TYPO = 0.8


def choose_format(tree: Tree, name: str | None, family: str | None) -> tuple[Format, str]:
    """Return the format, the stated one or else what the tree looks like, and the family to import it for.

    Raises:
        DatasetInvalid: the format or family is unknown, they do not go together, or the tree looks like nothing known.
    """
    for fault in request_faults(name, family):
        raise invalid(*fault)
    name = name or _detect(tree, family)
    return FORMATS[name], family or FORMATS[name].families[0]


def request_faults(name: str | None, family: str | None) -> list[tuple[str, str]]:
    """Return what is wrong with a stated format and family, as (field, fault)."""
    faults = []
    if name is not None and name not in FORMATS:
        faults.append(("format", f"{name!r} is not known; {_did_you_mean(name, FORMATS)}, or leave it out"))
    if family is not None and family not in FAMILIES:
        faults.append(("family", f"{family!r} cannot be imported; {_did_you_mean(family, FAMILIES)}"))
    if not faults and name is not None and family is not None and family not in FORMATS[name].families:
        known = " or ".join(map(repr, FORMATS[name].families))
        faults.append(("family", f"{name!r} holds no {family} data; use {known}, or another format"))
    return faults


def _detect(tree: Tree, family: str | None) -> str:
    candidates = {name: form for name, form in FORMATS.items() if family is None or family in form.families}
    expected = "expected " + ", ".join(f"{name} ({form.layout})" for name, form in candidates.items())
    if not tree.files:
        raise invalid("dataset", f"the archive holds no file; {expected}")
    found = next((name for name, form in candidates.items() if form.is_like(tree)), None)
    if found is None and tree.images:
        found = _by_remains(tree, candidates)
    if found is None:
        raise _unknown(tree, expected)
    return found


def _by_remains(tree: Tree, candidates: Iterable[str]) -> str | None:
    """Guess by what is left of a damaged dataset, whose importer then says what is missing."""
    if yolo.FORMAT in candidates and yolo.has_label_files(tree):
        return yolo.FORMAT
    if coco.FORMAT in candidates and tree.with_suffix(".json"):
        return coco.FORMAT
    only = list(candidates)
    return image_folder.FORMAT if image_folder.FORMAT in only and coco.FORMAT not in only else None


def _unknown(tree: Tree, expected: str) -> DatasetInvalid:
    if not tree.images:
        others = tree.with_suffix(*OTHER_IMAGE_SUFFIXES)
        hint = f"{others[0]} and its like must be converted" if others else "add the images"
        return invalid("dataset", f"no JPEG, PNG or WEBP image; {hint}; {expected}")
    folders = sorted({part for name in tree.files for part in PurePosixPath(name).parts[:-1]})
    for folder in folders:
        close = difflib.get_close_matches(folder.lower(), [word.lower() for word in _WORDS], n=1, cutoff=_TYPO)
        if close and close[0] != folder.lower():
            return invalid(folder, f"no annotations found; did you mean this folder to be {close[0]!r}? {expected}")
    return invalid("dataset", f"no annotations found; {expected}")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else "use one of " + ", ".join(known)
