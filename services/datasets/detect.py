"""Which format an unpacked dataset has, and which families of recipes can train on it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from services.core.errors import DatasetInvalid
from services.datasets import (
    aligned,
    celeba,
    coco,
    coco_masks,
    identity_folders,
    image_folder,
    lfw,
    mask_pairs,
    mnist,
    parallel_text,
    plain_text,
    points,
    rle_csv,
    side_by_side,
    unaligned,
    voc,
    voc_masks,
    weights,
    yolo,
)
from services.datasets.formats import request_faults
from services.datasets.problem import invalid
from services.datasets.source import Reading, SourceDataset, SourcePoints, SourceTexts, SourceWeights
from services.datasets.tree import OTHER_IMAGE_SUFFIXES, Tree


@dataclass(frozen=True, slots=True)
class Importer:
    """Reads one layout for one family."""

    format: str
    family: str
    is_like: Callable[[Tree], bool]
    read: Callable[[Reading], SourceDataset | SourcePoints | SourceTexts | SourceWeights]
    layout: str
    is_on_request: bool = False
    """Any picture is like it, so it is only taken where its family or format is asked for."""


# In the order they are tried: the more a layout says about itself, the earlier; of one layout the usual family first.
IMPORTERS = (
    Importer("lfw", "face", lfw.is_like, lfw.read, "PERSON/PERSON_0001.jpg with pairs.txt"),
    Importer("celeba", "images", celeba.is_like, celeba.read, "img_align_celeba/ with list_attr_celeba.txt"),
    Importer("celeba", "face", celeba.is_like, celeba.read, "img_align_celeba/ with identity_CelebA.txt"),
    Importer(
        "rle_csv", "segmentation", rle_csv.is_like, rle_csv.read, "train_images/ and train.csv with EncodedPixels"
    ),
    Importer("yolo", "detection", yolo.is_like, yolo.read, "labels/**/*.txt with data.yaml"),
    Importer("coco", "detection", coco.is_like, coco.read, "annotations/instances_train.json"),
    Importer("coco", "segmentation", coco.is_like, coco_masks.read, "annotations/instances_train.json"),
    Importer("mask_pairs", "segmentation", mask_pairs.is_like, mask_pairs.read, "images/ and masks/ with classes.txt"),
    Importer("voc", "detection", voc.is_like, voc.read, "Annotations/*.xml"),
    Importer("voc", "segmentation", voc_masks.is_like, voc_masks.read, "SegmentationClass/*.png"),
    Importer("unaligned", "domains", unaligned.is_like, unaligned.read, "trainA/ and trainB/"),
    Importer("aligned", "pairs", aligned.is_like, aligned.read, "A/ and B/ with equal stems"),
    Importer(
        "image_folder", "domains", unaligned.is_of_styles, unaligned.read_folders, "train/content/ and train/style/"
    ),
    Importer("mnist", "classification", mnist.is_like, mnist.read, "train-images-idx3-ubyte"),
    Importer("mnist", "images", mnist.is_like, mnist.read, "train-images-idx3-ubyte"),
    Importer("image_folder", "classification", image_folder.is_like, image_folder.read, "train/CLASS/*.jpg"),
    Importer("image_folder", "images", image_folder.has_images, image_folder.read, "train/*.jpg", is_on_request=True),
    Importer(
        "image_folder",
        "domains",
        image_folder.has_images,
        unaligned.read_folders,
        "train/DOMAIN/*.jpg",
        is_on_request=True,
    ),
    Importer(
        "side_by_side",
        "pairs",
        image_folder.has_images,
        side_by_side.read,
        "train/*.jpg, A left and B right",
        is_on_request=True,
    ),
    Importer(
        "identity_folders",
        "face",
        image_folder.has_images,
        identity_folders.read,
        "train/PERSON/*.jpg",
        is_on_request=True,
    ),
    Importer("points", "points", points.is_like, points.read, "train.csv or train.npy"),
    Importer(
        "parallel_text", "parallel_text", parallel_text.is_like, parallel_text.read, "train.tsv, or .src with .tgt"
    ),
    Importer("plain_text", "text", plain_text.is_like, plain_text.read, "train.txt"),
    Importer(weights.FORMAT, weights.FAMILY, weights.is_like, weights.read, "one .safetensors file"),
)
_PLAIN = (
    "images alone are imported with family 'images' (`--family images`), pairs side by side in one file each with 'pairs', "
    "two folders of two domains with 'domains'"
)
_WORDS = ("annotations", "images", "labels", "masks", "train", "val", "test", "jpegimages", "segmentationclass")
_TYPO = 0.8


def choose_importer(tree: Tree, name: str | None, family: str | None) -> Importer:
    """Return the importer of the stated format and family; what is not stated, the tree tells.

    Raises:
        DatasetInvalid: format or family is unknown, they do not go together, or the tree looks like nothing known.
    """
    for fault in request_faults(name, family):
        raise invalid(*fault)
    candidates = [each for each in IMPORTERS if name in (None, each.format) and family in (None, each.family)]
    if name is None and family is None:
        candidates = [each for each in candidates if not each.is_on_request]
    found = next((each for each in candidates if each.is_like(tree)), None)
    if found is None and (name is not None or len(candidates) == 1):
        # What was asked for is read whatever it looks like, so that the importer says what is missing.
        found = candidates[0]
    return found or _by_remains(tree, candidates) or _refuse(tree, candidates)


def _by_remains(tree: Tree, candidates: Iterable[Importer]) -> Importer | None:
    """Guess by what is left of a damaged dataset, whose importer then says what is missing."""
    by_format = {each.format: each for each in reversed(list(candidates))}
    if "yolo" in by_format and tree.images and yolo.has_label_files(tree):
        return by_format["yolo"]
    if "coco" in by_format and tree.images and tree.with_suffix(".json"):
        return by_format["coco"]
    # Without boxes among the candidates a family was asked for, and its images belong into folders.
    return by_format.get("image_folder") if tree.images and "coco" not in by_format else None


def _refuse(tree: Tree, candidates: Iterable[Importer]) -> Importer:
    layouts = {each.format: each.layout for each in reversed(list(candidates))}
    expected = "expected " + ", ".join(f"{name} ({layout})" for name, layout in layouts.items())
    if not tree.files:
        raise invalid("dataset", f"the archive holds no file; {expected}")
    if not tree.images:
        others = tree.with_suffix(*OTHER_IMAGE_SUFFIXES)
        hint = f"{others[0]} and its like must be converted" if others else "add the images"
        raise invalid("dataset", f"no JPEG, PNG or WEBP image; {hint}; {expected}")
    plain = f"{_PLAIN}; " if any(each.family == "images" for each in candidates) else ""
    raise _misspelt(tree, expected) or invalid("dataset", f"no annotations found; {plain}{expected}")


def _misspelt(tree: Tree, expected: str) -> DatasetInvalid | None:
    for folder in sorted({part for name in tree.files for part in PurePosixPath(name).parts[:-1]}):
        close = difflib.get_close_matches(folder.lower(), _WORDS, n=1, cutoff=_TYPO)
        if close and close[0] != folder.lower():
            return invalid(folder, f"no annotations found; did you mean this folder to be {close[0]!r}? {expected}")
    return None
