"""Tiny datasets of every format, correct unless a test changes them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog")
SIZE = (64, 48)
BOX = (10.0, 8.0, 30.0, 40.0)
"""xyxy in pixels: what every builder puts into every image unless told otherwise."""


def picture(seed: int, size: tuple[int, int] = SIZE, *, form: str = "JPEG") -> bytes:
    """Return an encoded image of noise, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, form)
    return target.getvalue()


@dataclass(slots=True)
class CocoFolder:
    """A COCO dataset in memory; tests spoil `splits` or `files`, then `write` it."""

    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def content(self) -> dict[str, bytes]:
        documents = {
            f"annotations/instances_{split}.json": json.dumps(document).encode()
            for split, document in self.splits.items()
        }
        return {**documents, **self.files}

    def write(self, directory: Path) -> Path:
        return write_files(directory, self.content())


def coco(*, train: int = 3, val: int = 2) -> CocoFolder:
    folder = CocoFolder()
    for split, count, start in (("train", train, 0), ("val", val, 100)):
        document: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        document["categories"] = [{"id": 7 + n, "name": name} for n, name in enumerate(CLASSES)]
        for n in range(1, count + 1):
            name = f"{start + n}.jpg"
            folder.files[f"images/{split}/{name}"] = picture(start + n)
            document["images"].append({"id": n, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            document["annotations"].append(coco_box(n, n, category_id=7 + n % 2))
        if count:
            folder.splits[split] = document
    return folder


def coco_box(annotation_id: int, image_id: int, **fields: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = BOX
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return {"id": annotation_id, "image_id": image_id, "category_id": 7, "bbox": bbox, "iscrowd": 0} | fields


def voc(*, train: int = 3, val: int = 2) -> dict[str, bytes]:
    """Return the files of a VOC dataset by name."""
    files: dict[str, bytes] = {}
    for split, count, start in (("train", train, 0), ("val", val, 100)):
        stems = [f"{start + n:06d}" for n in range(1, count + 1)]
        for n, stem in enumerate(stems):
            files[f"JPEGImages/{stem}.jpg"] = picture(start + n)
            files[f"Annotations/{stem}.xml"] = voc_xml(f"{stem}.jpg", CLASSES[n % 2]).encode()
        if stems:
            files[f"ImageSets/Main/{split}.txt"] = "\n".join(stems).encode()
    return files


def voc_xml(filename: str, label: str, *, corners: tuple[int, int, int, int] = (11, 9, 30, 40), extra: str = "") -> str:
    """Return one annotation; the corners are 1-based and inclusive, as VOC has them."""
    sides = "".join(
        f"<{name}>{side}</{name}>" for name, side in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return (
        f"<annotation><filename>{filename}</filename>"
        f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
        f"<object><name>{label}</name>{extra}<bndbox>{sides}</bndbox></object></annotation>"
    )


def yolo(*, train: int = 3, val: int = 2) -> dict[str, bytes]:
    """Return the files of a YOLO dataset by name."""
    files = {"data.yaml": b"train: images/train\nval: images/val\nnames: [cat, dog]\n"}
    for split, count, start in (("train", train, 0), ("val", val, 100)):
        for n in range(1, count + 1):
            files[f"images/{split}/{start + n}.png"] = picture(start + n, form="PNG")
            files[f"labels/{split}/{start + n}.txt"] = yolo_line(n % 2).encode()
    return files


def yolo_line(label: int, box: tuple[float, float, float, float] = BOX) -> str:
    (width, height), (x1, y1, x2, y2) = SIZE, box
    return f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"


def write_files(directory: Path, files: Mapping[str, bytes]) -> Path:
    for name, body in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return directory


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, body in files.items():
            packed.writestr(name, body)
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    """Pack a tar; one whose name ends with .gz is compressed."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as packed:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            packed.addfile(info, io.BytesIO(body))
    return path
