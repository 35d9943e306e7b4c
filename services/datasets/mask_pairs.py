"""Images and masks of one stem each: `images/train/1.jpg` and `masks/train/1.png`, and a list of classes.

Masks are PNG of class indices, 255 to be ignored, or of the colours the list of classes gives.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from services.datasets.class_list import ClassList, find_class_list, read_class_list
from services.datasets.mask import MaskFile
from services.datasets.problem import ProblemKind
from services.datasets.source import Reading, SourceDataset, SourceImage
from services.datasets.tree import Tree, split_of_path

FORMAT = "mask_pairs"
_MASKS, _IMAGES = frozenset({"mask", "masks"}), frozenset({"image", "images"})
_TAILS = ("_mask", "-mask")


def is_like(tree: Tree) -> bool:
    """Tell whether some images of the tree lie under `masks`."""
    return any(_is_under(name, _MASKS) for name in tree.images)


def read(reading: Reading) -> SourceDataset:
    """Pair images with masks; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    classes = _classes(reading)
    if classes is None:
        return SourceDataset(FORMAT, (), (), family="segmentation")
    masks = {_key(name, _MASKS): name for name in tree.images if _is_under(name, _MASKS)}
    images, used = [], set()
    for name in tree.images:
        if _is_under(name, _MASKS):
            continue
        key = _key(name, _IMAGES)
        if key not in masks:
            text = f"has no mask; add {PurePosixPath(name).stem}.png under masks/ or remove the image"
            problems.add(ProblemKind.MASK, name, text)
            continue
        used.add(key)
        mask = MaskFile(masks[key], tree.path(masks[key]), reading.limits, classes.colours)
        split = split_of_path(PurePosixPath(name).parent.as_posix()) or ""
        images.append(SourceImage(name, tree.path(name), name, split, mask=mask))
    for key in sorted(set(masks) - used):
        problems.add(ProblemKind.MISSING_IMAGE, masks[key], "no image has this mask's name; add it or remove the mask")
    return SourceDataset(FORMAT, classes.names, tuple(images), family="segmentation")


def _classes(reading: Reading) -> ClassList | None:
    name = find_class_list(reading.tree)
    if name is None:
        text = "not found; add it with one class a line, the first for value 0, such as `background`"
        reading.problems.add(ProblemKind.CLASS, "classes.txt", text)
        return None
    return read_class_list(reading.tree, name, reading.problems)


def _is_under(name: str, words: frozenset[str]) -> bool:
    return any(part.lower() in words for part in PurePosixPath(name).parts[:-1])


def _key(name: str, words: frozenset[str]) -> tuple[str, ...]:
    """Return what an image and its mask have in common: their folders without `images` or `masks`, and the stem."""
    path = PurePosixPath(name)
    stem = path.stem
    if words is _MASKS:
        for tail in _TAILS:
            stem = stem.removesuffix(tail)
    return (*(part for part in path.parts[:-1] if part.lower() not in words), stem)
