"""Pascal VOC's segmentation: `JPEGImages/`, palette masks in `SegmentationClass/`, lists in `ImageSets/Segmentation`.

The palette's index is the class; 255 marks the borders of objects, which are ignored. Without a list of
classes of its own the dataset has VOC's twenty after the background.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from services.datasets.class_list import ClassList, find_class_list, read_class_list
from services.datasets.mask import MaskFile
from services.datasets.problem import ProblemKind
from services.datasets.source import Reading, SourceDataset, SourceImage
from services.datasets.tree import IMAGE_SUFFIXES, Tree, split_of_path
from services.datasets.voc import FORMAT, image_sets

_FOLDER = "SegmentationClass"
_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds VOC's masks."""
    return any(_is_mask(name) for name in tree.images)


def read(reading: Reading) -> SourceDataset:
    """List every image that has a mask; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    name = find_class_list(tree)
    classes = ClassList(tuple(_NAMES.split()), None) if name is None else read_class_list(tree, name, problems)
    if classes is None:
        return SourceDataset(FORMAT, (), (), family="segmentation")
    splits = image_sets(tree, problems, folders=frozenset({"Segmentation"}))
    masks = {PurePosixPath(name).stem: name for name in tree.images if _is_mask(name)}
    for stem, stated in splits.items():
        # VOC publishes the list of its test images but not their masks.
        if stem not in masks and stated != ["test"]:
            text = f"is listed in ImageSets/Segmentation, but {_FOLDER}/{stem}.png is missing; add it"
            problems.add(ProblemKind.MASK, stem, text)
    images = [image for stem in masks for image in _images(reading, stem, masks[stem], classes, splits)]
    unlisted = sum(stem not in splits for stem in masks) if splits else 0
    untold = sum(stem not in masks for stem in splits)
    ignored = {"masks no ImageSets list names": unlisted, "test images without a mask": untold}
    return SourceDataset(FORMAT, classes.names, tuple(images), ignored, family="segmentation")


def _is_mask(name: str) -> bool:
    return _FOLDER in PurePosixPath(name).parts[:-1]


def _images(
    reading: Reading, stem: str, mask_name: str, classes: ClassList, splits: dict[str, list[str]]
) -> Iterator[SourceImage]:
    tree = reading.tree
    folder = PurePosixPath(mask_name).parent
    beside = [folder.with_name(word).as_posix() for word in ("JPEGImages", "images")]
    folders = (*beside, "JPEGImages", "images")
    endings = [case for suffix in sorted(IMAGE_SUFFIXES) for case in (suffix, suffix.upper())]
    name = next((found for ending in endings if (found := tree.find(stem + ending, folders)) is not None), None)
    if name is None:
        text = f"no image {stem} in JPEGImages; add it or remove the mask"
        reading.problems.add(ProblemKind.MISSING_IMAGE, mask_name, text)
        return
    mask = MaskFile(mask_name, tree.path(mask_name), reading.limits, classes.colours)
    stated = splits.get(stem, []) if splits else [split_of_path(PurePosixPath(name).parent.as_posix()) or ""]
    for split in stated:
        yield SourceImage(name, tree.path(name), name, split, mask=mask)
