"""Which format an unpacked dataset has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from services.datasets import coco, voc, yolo
from services.datasets.limits import ImportLimits
from services.datasets.problem import Problems, invalid
from services.datasets.source import SourceDataset
from services.datasets.tree import OTHER_IMAGE_SUFFIXES, Tree

Reader = Callable[[Tree, ImportLimits, Problems], SourceDataset]

READERS: dict[str, Reader] = {coco.FORMAT: coco.read, voc.FORMAT: voc.read, yolo.FORMAT: yolo.read}
_EXPECTED = (
    "expected COCO (annotations/instances_train.json), VOC (Annotations/*.xml) or YOLO (labels/**/*.txt with data.yaml)"
)


def detect_format(tree: Tree) -> str:
    """Return `coco`, `voc` or `yolo`, or raise DatasetInvalid with what was looked for."""
    if not tree.files:
        raise invalid("dataset", f"the archive holds no file; {_EXPECTED}")
    if not tree.images:
        others = tree.with_suffix(*OTHER_IMAGE_SUFFIXES)
        hint = f"{others[0]} and its like must be converted" if others else "add the images"
        raise invalid("dataset", f"no JPEG, PNG or WEBP image; {hint}")
    if yolo.name_file(tree) is not None and _has_label_files(tree):
        return yolo.FORMAT
    documents = tree.with_suffix(".json")
    if any(coco.is_coco_file(tree.path(name)) for name in documents):
        return coco.FORMAT
    if tree.with_suffix(".xml"):
        return voc.FORMAT
    if _has_label_files(tree):
        return yolo.FORMAT
    if documents:
        return coco.FORMAT
    raise invalid("dataset", f"no annotations found; {_EXPECTED}")


def _has_label_files(tree: Tree) -> bool:
    """Tell whether any text file lies where YOLO keeps labels: under `labels`, or beside an image of its stem."""
    stems = {name.rpartition(".")[0] for name in tree.images}
    return any(
        "labels" in PurePosixPath(name).parts[:-1] or name.rpartition(".")[0] in stems
        for name in tree.with_suffix(".txt")
    )
