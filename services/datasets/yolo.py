"""YOLO txt: `class cx cy w h` in shares of the image, one file an image, ids from 0.

Images are found by replacing `labels` with `images`; names come from data.yaml or classes.txt.
An image without a label file shows no object.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from services.datasets.limits import MIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.source import SPLITS, Reading, SourceBox, SourceDataset, SourceImage
from services.datasets.tree import Tree, normal, split_of_path

FORMAT = "yolo"
NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names")
_MAX_TEXT_BYTES = 4 * MIB
_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class _Header:
    """Class names, where they were found, and folders or list files of splits (data.yaml)."""

    name: str
    classes: tuple[str, ...]
    folders: dict[str, list[str]]


def name_file(tree: Tree) -> str | None:
    """Return the file that names the classes, the one nearest to the root."""
    found = [name for name in tree.files if PurePosixPath(name).name in NAME_FILES]
    return min(found, key=lambda name: (name.count("/"), NAME_FILES.index(PurePosixPath(name).name)), default=None)


def is_like(tree: Tree) -> bool:
    """Tell whether the tree names classes the way YOLO does and has label files."""
    return bool(tree.images) and name_file(tree) is not None and has_label_files(tree)


def has_label_files(tree: Tree) -> bool:
    """Tell whether any text file lies where YOLO keeps labels: under `labels`, or beside an image of its stem."""
    stems = {name.rpartition(".")[0] for name in tree.images}
    return any(
        "labels" in PurePosixPath(name).parts[:-1] or name.rpartition(".")[0] in stems
        for name in tree.with_suffix(".txt")
    )


def read(reading: Reading) -> SourceDataset:
    """Parse every label file of the tree; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    header = _header(tree, problems)
    if header is None:
        return SourceDataset(FORMAT, (), ())
    splits = _splits(tree, header, problems)
    images, used = [], set()
    for name in tree.images:
        label_file = _label_file(tree, name)
        used.add(label_file)
        boxes = _boxes(tree, label_file, len(header.classes), problems) if label_file else ()
        split = splits.get(name, "") if splits else split_of_path(name) or ""
        if split or not splits:
            images.append(SourceImage(label_file or name, tree.path(name), name, split, boxes))
    for name in tree.with_suffix(".txt"):
        if (
            name not in used
            and "labels" in PurePosixPath(name).parts[:-1]
            and PurePosixPath(name).name not in NAME_FILES
        ):
            problems.add(
                ProblemKind.MISSING_IMAGE, name, "no image belongs to this label file; add it or remove the file"
            )
    ignored = {f"images {header.name} puts in no split": len(tree.images) - len(images)}
    return SourceDataset(FORMAT, header.classes, tuple(images), ignored)


def _header(tree: Tree, problems: Problems) -> _Header | None:
    name = name_file(tree)
    if name is None:
        text = "no data.yaml or classes.txt; add one that names the classes in the order of their ids"
        problems.add(ProblemKind.LAYOUT, "data.yaml", text)
        return None
    content = _read_text(tree, name, problems)
    if content is None:
        return None
    if not name.endswith((".yaml", ".yml")):
        classes = [line.strip() for line in content.splitlines() if line.strip()]
        return _Header(name, tuple(classes), {}) if _are_named(classes, name, problems) else None
    try:
        parsed = yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError, ValueError) as err:
        mark = getattr(err, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problems.add(ProblemKind.BROKEN_FILE, name, f"not YAML{where}; repair it")
        return None
    return _yaml_header(name, parsed, problems)


def _yaml_header(name: str, content: Any, problems: Problems) -> _Header | None:
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[n] for n in range(len(names))]
    if not isinstance(names, list):
        text = "must be a list of class names, or a mapping from 0..K-1 to names"
        problems.add(ProblemKind.CLASS, f"{name}: names", text)
        return None
    # An alias bomb is small until somebody prints it; YAML's `no` and `null` are no names either.
    if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in names):
        problems.add(ProblemKind.CLASS, f"{name}: names", "class names must be plain text; put them in quotes")
        return None
    classes = [str(item).strip() for item in names]
    if not _are_named(classes, name, problems):
        return None
    base = content.get("path")
    prefix = normal(base) if isinstance(base, str) else ""
    folders = {
        split: [folder for item in _as_list(content[key]) if (folder := _inside(item, prefix or "")) is not None]
        for key, split in _SPLIT_KEYS.items()
        if content.get(key)
    }
    return _Header(name, tuple(classes), folders)


def _are_named(classes: list[str], name: str, problems: Problems) -> bool:
    if classes and all(classes) and len(set(classes)) == len(classes):
        return True
    problems.add(ProblemKind.CLASS, f"{name}: names", "needs at least one class, every name non-empty and only once")
    return False


def _as_list(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _inside(item: str, prefix: str) -> str | None:
    """Return a split's path inside the dataset.

    Exporters write `../train/images` for a data.yaml they expect one folder lower; the climb is dropped,
    because nothing outside the dataset is ever read.
    """
    while item.startswith("../"):
        item = item[3:]
    return normal(f"{prefix}/{item}" if prefix else item)


def _splits(tree: Tree, header: _Header, problems: Problems) -> dict[str, str]:
    """Return the split of each image that data.yaml places; empty where folders must tell."""
    base = PurePosixPath(header.name).parent
    splits: dict[str, str] = {}
    for split in SPLITS:
        for folder in header.folders.get(split, []):
            candidates = [normal((base / folder).as_posix()) or "", folder]
            if listed := next((name for name in candidates if tree.has(name)), None):
                splits |= dict.fromkeys(_listed_images(tree, listed, problems), split)
            else:
                splits |= {n: split for n in tree.images for c in candidates if n.startswith(f"{c}/" if c else "")}
    return splits


def _listed_images(tree: Tree, name: str, problems: Problems) -> list[str]:
    """Read a list of image paths, one a line."""
    found = []
    for number, line in enumerate((_read_text(tree, name, problems) or "").splitlines(), start=1):
        if not (stated := line.strip()):
            continue
        image = tree.find(_inside(stated, "") or stated, (PurePosixPath(name).parent.as_posix(), ""))
        if image is None:
            text = f"{stated!r} is not in the dataset; add it or remove the line"
            problems.add(ProblemKind.MISSING_IMAGE, f"{name}: line {number}", text)
        else:
            found.append(image)
    return found


def _label_file(tree: Tree, image: str) -> str | None:
    """Return the label file of an image: beside it, or with the last `images` folder named `labels`."""
    path = PurePosixPath(image).with_suffix(".txt")
    parts = list(path.parts)
    places = [n for n, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if places:
        parts[places[-1]] = "labels"
    mirrored = "/".join(parts)
    return next((name for name in (mirrored, path.as_posix()) if tree.has(name)), None)


def _boxes(tree: Tree, name: str, num_classes: int, problems: Problems) -> tuple[SourceBox, ...]:
    text = _read_text(tree, name, problems)
    boxes = []
    for number, line in enumerate((text or "").splitlines(), start=1):
        if line.strip() and (box := _box(line, f"{name}: line {number}", num_classes, problems)) is not None:
            boxes.append(box)
    return tuple(boxes)


def _box(line: str, where: str, num_classes: int, problems: Problems) -> SourceBox | None:
    words = line.split()
    if len(words) != 5:
        hint = "polygons are not boxes; export boxes" if len(words) > 6 else "write `class cx cy w h`"
        problems.add(ProblemKind.BOX, where, f"has {len(words)} values, a box has 5; {hint}")
        return None
    try:
        label = int(words[0])
        cx, cy, width, height = map(float, words[1:])
    except ValueError:
        problems.add(ProblemKind.BOX, where, "not numbers; write `class cx cy w h`")
        return None
    if not 0 <= label < num_classes:
        text = f"class {label} is not among the {num_classes} classes (0..{num_classes - 1}); correct it"
        problems.add(ProblemKind.CLASS, where, text)
        return None
    if max(map(abs, (cx, cy, width, height))) > 2:
        text = "values are not shares of the image; divide pixels by the image's width and height"
        problems.add(ProblemKind.BOX, where, text)
        return None
    half_w, half_h = width / 2, height / 2
    return SourceBox(where, label, cx - half_w, cy - half_h, cx + half_w, cy + half_h, is_normalised=True)


def _read_text(tree: Tree, name: str, problems: Problems) -> str | None:
    path = tree.path(name)
    if path.stat().st_size > _MAX_TEXT_BYTES:
        problems.add(ProblemKind.BROKEN_FILE, name, f"larger than {_MAX_TEXT_BYTES // MIB} MiB; this is no label file")
        return None
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problems.add(ProblemKind.BROKEN_FILE, name, "not UTF-8 text; export it again")
        return None
