"""COCO json: xywh boxes in pixels, category ids remapped to 1..K, crowds kept; or the outlines of objects as masks.

One file a split, found by name (`annotations/instances_train.json`, `train/_annotations.coco.json`),
or one file for everything.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, Protocol, TypeGuard, TypeVar

from services.datasets.limits import ImportLimits
from services.datasets.problem import ProblemKind, Problems, listing
from services.datasets.source import Reading, SourceBox, SourceDataset, SourceImage
from services.datasets.tree import Tree, split_of_path

FORMAT = "coco"
_KEYS = ("images", "annotations", "categories")
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CocoFile:
    """One parsed annotation file."""

    name: str
    split: str
    content: dict[str, Any]


class Truth(Protocol):
    """What an annotation says; `where` names it in messages."""

    @property
    def where(self) -> str: ...


TruthT = TypeVar("TruthT", bound=Truth)


class _NotACount(ValueError):
    """JSON says NaN or Infinity, which no box may be."""


def is_coco_file(path: Path) -> bool:
    """Tell whether a json file looks like COCO from its ends; a huge file is not parsed for that."""
    with path.open("rb") as source:
        head = source.read(_HEAD_BYTES)
        source.seek(max(0, path.stat().st_size - _HEAD_BYTES))
        text = head + source.read()
    return b'"images"' in text or b'"annotations"' in text or b'"categories"' in text


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds a COCO file."""
    return bool(tree.images) and any(is_coco_file(tree.path(name)) for name in tree.with_suffix(".json"))


def read(reading: Reading) -> SourceDataset:
    """Parse every COCO file of the tree; what is wrong goes to the problems."""
    files, classes = parse_files(reading)
    index = {category_id: n for n, category_id in enumerate(classes)}
    images = []
    for file in files:
        boxes = by_image(file, lambda entry, where: _box(entry, where, index, reading.problems), reading.problems)
        images += [replace(image, boxes=found) for image, found in list_images(reading, file, boxes)]
    return SourceDataset(FORMAT, tuple(classes.values()), tuple(images), unlisted_images(reading.tree, images))


def parse_files(reading: Reading) -> tuple[list[CocoFile], dict[int, str]]:
    """Return the annotation files, and class names by category id in id order."""
    tree, limits, problems = reading.tree, reading.limits, reading.problems
    files = [file for name in _candidates(tree) if (file := _parse(tree, name, limits, problems)) is not None]
    return files, _classes(files, problems)


def unlisted_images(tree: Tree, images: list[SourceImage]) -> dict[str, int]:
    """Count the images that no file lists."""
    listed = {image.name for image in images}
    return {"images no annotation file lists": sum(1 for name in tree.images if name not in listed)}


def _candidates(tree: Tree) -> list[str]:
    """Return the files to read: those called instances, whatever is left of them, or else all that look like COCO.

    COCO ships captions and keypoints beside the instances; where instances exist, only they count.
    """
    names = tree.with_suffix(".json")
    instances = [name for name in names if PurePosixPath(name).name.startswith("instances")]
    return instances or [name for name in names if is_coco_file(tree.path(name))] or names


def _parse(tree: Tree, name: str, limits: ImportLimits, problems: Problems) -> CocoFile | None:
    path = tree.path(name)
    if path.stat().st_size > limits.max_annotation_bytes:
        limit = limits.max_annotation_bytes // 2**20
        problems.add(ProblemKind.BROKEN_FILE, name, f"larger than {limit} MiB; split the dataset into several files")
        return None
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except json.JSONDecodeError as err:
        where = f"line {err.lineno}, column {err.colno}"
        problems.add(ProblemKind.BROKEN_FILE, name, f"not JSON at {where}: {err.msg}; repair or export the file again")
        return None
    except (ValueError, RecursionError) as err:
        problems.add(ProblemKind.BROKEN_FILE, name, f"not readable JSON ({err}); export the file again as UTF-8")
        return None
    if not isinstance(content, dict):
        problems.add(ProblemKind.BROKEN_FILE, name, f"the top level must be an object with {', '.join(_KEYS)}")
        return None
    for key in _KEYS:
        if not isinstance(content.get(key), list):
            problems.add(ProblemKind.BROKEN_FILE, f"{name}: {key}", "must be a list; export the dataset as COCO json")
            return None
    return CocoFile(name, split_of_path(name) or "", content)


def _refuse_constant(word: str) -> NoReturn:
    raise _NotACount(f"{word} is not a number")


def _classes(files: list[CocoFile], problems: Problems) -> dict[int, str]:
    """Return class names by category id, in id order, the same for every file."""
    found: dict[int, str] = {}
    for file in files:
        for n, category in enumerate(file.content["categories"]):
            where = f"{file.name}: categories[{n}]"
            if not isinstance(category, dict) or not _is_id(category.get("id")) or not _is_name(category.get("name")):
                problems.add(ProblemKind.CLASS, where, "needs an integer id and a non-empty name")
            elif found.setdefault(category["id"], category["name"]) != category["name"]:
                other = found[category["id"]]
                text = f"id {category['id']} is {category['name']!r} here and {other!r} elsewhere; use one name per id"
                problems.add(ProblemKind.CLASS, where, text)
    repeated = [name for name, count in Counter(found.values()).items() if count > 1]
    if repeated:
        text = f"several ids share a name: {listing(repeated)}; give every class its own"
        problems.add(ProblemKind.CLASS, f"{files[0].name}: categories", text)
    if files and not found:
        problems.add(ProblemKind.CLASS, f"{files[0].name}: categories", "no class is defined; list at least one")
    return dict(sorted(found.items()))


def list_images(
    reading: Reading, file: CocoFile, truths: dict[int, list[TruthT]]
) -> list[tuple[SourceImage, tuple[TruthT, ...]]]:
    """Return every image of a file with what is known of it by its id."""
    tree, problems = reading.tree, reading.problems
    truths = dict(truths)
    found: list[tuple[SourceImage, tuple[TruthT, ...]]] = []
    seen: set[int] = set()
    folders = _folders(file)
    for n, entry in enumerate(file.content["images"]):
        where = f"{file.name}: images[{n}]"
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not _is_name(entry.get("file_name")):
            problems.add(ProblemKind.ANNOTATION, where, "needs an integer id and a file_name")
            continue
        if entry["id"] in seen:
            problems.add(ProblemKind.ANNOTATION, where, f"id {entry['id']} occurs twice; give every image its own id")
            continue
        seen.add(entry["id"])
        known = tuple(truths.pop(entry["id"], ()))
        name = tree.find(entry["file_name"], folders)
        if name is None:
            text = f"the file is not in the dataset; add it (looked in {listing([f or '/' for f in folders])})"
            problems.add(ProblemKind.MISSING_IMAGE, f"{where}: {entry['file_name']}", text)
            continue
        width, height = (entry.get(side) if _is_id(entry.get(side)) else None for side in ("width", "height"))
        split = file.split or split_of_path(name) or ""
        found.append((SourceImage(where, tree.path(name), name, split, width=width, height=height), known))
    for orphans in truths.values():
        for truth in orphans:
            text = "its image_id is not among the images; remove it or add the image"
            problems.add(ProblemKind.ANNOTATION, truth.where, text)
    return found


def _folders(file: CocoFile) -> tuple[str, ...]:
    """Return where images of this file may lie, most specific first."""
    beside = PurePosixPath(file.name).parent.as_posix()
    word = PurePosixPath(file.name).stem.rpartition("_")[2]
    words = dict.fromkeys(w for w in (word, file.split) if w)
    nested = [folder for w in words for folder in (f"images/{w}", w)]
    return tuple(dict.fromkeys([*nested, "images", "" if beside == "." else beside, ""]))


def by_image(
    file: CocoFile, parse: Callable[[dict[str, Any], str], TruthT | None], problems: Problems
) -> dict[int, list[TruthT]]:
    """Return what `parse` makes of each annotation, by image id."""
    grouped: dict[int, list[TruthT]] = defaultdict(list)
    for n, entry in enumerate(file.content["annotations"]):
        where = f"{file.name}: annotations[{n}]"
        if not isinstance(entry, dict) or not _is_id(entry.get("image_id")):
            problems.add(ProblemKind.ANNOTATION, where, "needs an integer image_id")
        elif (truth := parse(entry, where)) is not None:
            grouped[entry["image_id"]].append(truth)
    return grouped


def class_of(entry: dict[str, Any], where: str, index: dict[int, int], problems: Problems) -> int | None:
    """Return the index of an annotation's category, or None after naming the problem."""
    category = entry.get("category_id")
    label = index.get(category) if _is_id(category) else None
    if label is None:
        text = f"category {category!r} is not among the categories; correct it or add the category"
        problems.add(ProblemKind.CLASS, f"{where}.category_id", text)
    return label


def _box(entry: dict[str, Any], where: str, index: dict[int, int], problems: Problems) -> SourceBox | None:
    label = class_of(entry, where, index, problems)
    if label is None:
        return None
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(side) for side in bbox):
        problems.add(ProblemKind.BOX, f"{where}.bbox", "must be four numbers: x, y, width, height in pixels")
        return None
    x, y, width, height = map(float, bbox)
    area = entry.get("area")
    return SourceBox(
        where=f"{where}.bbox",
        label=label,
        x1=x,
        y1=y,
        x2=x + width,
        y2=y + height,
        is_crowd=entry.get("iscrowd") in (1, True),
        area=float(area) if is_number(area) and area > 0 else None,
    )


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
