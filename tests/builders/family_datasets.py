"""Tiny datasets for every family beside detection, as files by name; correct unless a test changes them."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.builders.datasets import SIZE, picture

Files = dict[str, bytes]
Pixels = npt.NDArray[np.uint8]
PEOPLE = ("ann", "bob", "cy", "dan")


def image_folder(*, train: int = 3, val: int = 2, classes: tuple[str, ...] = ("cat", "dog")) -> Files:
    """Return `{train,val}/CLASS/N.png`, every image another one."""
    files = {}
    for first, (split, count) in enumerate((("train", train), ("val", val))):
        for label, name in enumerate(classes):
            for n in range(count):
                files[f"{split}/{name}/{n}.png"] = picture(1000 * first + 100 * label + n, form="PNG")
    return files


def png(pixels: Pixels, palette: bytes | None = None) -> bytes:
    image = Image.fromarray(pixels)
    if palette is not None:
        image = image.convert("P")
        image.putpalette(palette)
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def mask(number: int, *, size: tuple[int, int] = SIZE) -> Pixels:
    """Return indices with a rectangle of 1, one of 2, and a border to be ignored."""
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[5:20, 3 + number : 30 + number] = 1
    pixels[25:40, 10:40] = 2
    pixels[0] = 255
    return pixels


def mask_pairs(*, train: int = 3, val: int = 2) -> Files:
    files = {"classes.txt": b"background\nroad\ncar\n"}
    for first, (split, count) in enumerate((("train", train), ("val", val))):
        for n in range(count):
            files[f"images/{split}/{n}.jpg"] = picture(100 * first + n)
            files[f"masks/{split}/{n}.png"] = png(mask(n + first))
    return files


def aligned(*, train: int = 3, val: int = 2) -> Files:
    """Return `{A,B}/{train,val}/N`, every image another one."""
    files = {}
    for first, (split, count) in enumerate((("train", train), ("val", val))):
        for n in range(count):
            files[f"A/{split}/{n}.jpg"] = picture(100 * first + n)
            files[f"B/{split}/{n}.png"] = picture(1000 + 100 * first + n, form="PNG")
    return files


def side_by_side(*, train: int = 3, val: int = 2) -> Files:
    """Return `{train,val}/N.png`, each two images wide."""
    files = {}
    for first, (split, count) in enumerate((("train", train), ("val", val))):
        for n in range(count):
            files[f"{split}/{n}.png"] = picture(100 * first + n, (2 * SIZE[0], SIZE[1]), form="PNG")
    return files


def unaligned(*, train: int = 3, test: int = 2) -> Files:
    """Return `{train,test}{A,B}/N.jpg`, every image another one."""
    files = {}
    for first, (split, count) in enumerate((("train", train), ("test", test))):
        for label, domain in enumerate("AB"):
            for n in range(count):
                files[f"{split}{domain}/{n}.jpg"] = picture(1000 * first + 100 * label + n)
    return files


def voc_masks(*, train: int = 3, val: int = 2) -> Files:
    """Return VOC's layout; the masks have a palette, as VOC's do."""
    files: Files = {}
    for first, (split, count) in enumerate((("train", train), ("val", val))):
        stems = [f"2007_{100 * first + n:06d}" for n in range(count)]
        for n, stem in enumerate(stems):
            files[f"JPEGImages/{stem}.jpg"] = picture(100 * first + n)
            files[f"SegmentationClass/{stem}.png"] = png(mask(n), palette=bytes(range(256)) * 3)
        files[f"ImageSets/Segmentation/{split}.txt"] = "\n".join(stems).encode()
    return files


def runs_of(region: npt.NDArray[np.bool_]) -> str:
    """Return `start length start length ...` of a region, from 1 on, down the columns."""
    inside = np.pad(region.T.reshape(-1).astype(np.int8), 1)
    edges = np.flatnonzero(np.diff(inside)).reshape(-1, 2)
    return " ".join(f"{start + 1} {stop - start}" for start, stop in edges)


def rle_csv(*, train: int = 3, val: int = 2) -> Files:
    """Return Severstal's layout: a table and a folder of images a split; the first image of each shows nothing."""
    files: Files = {}
    for first, (split, count) in enumerate((("train", train), ("val", val))):
        rows = ["ImageId,ClassId,EncodedPixels"]
        for n in range(count):
            files[f"{split}_images/{first}{n}.jpg"] = picture(100 * first + n)
            rows += [f"{first}{n}.jpg,{label},{runs_of(mask(n) == label)}" for label in (1, 2) if n]
        files[f"{split}.csv"] = "\n".join(rows).encode()
    return files


def square(x: int, y: int, side: int) -> list[int]:
    """Return the corners of a square as COCO lists them."""
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def coco_masks(*outlines: dict[str, Any]) -> Files:
    """Return a COCO dataset of one image a split; `outlines` are the annotations of both, an image_id is added."""
    files = {}
    for first, split in enumerate(("train", "val")):
        document = {
            "images": [{"id": 1, "file_name": "1.jpg", "width": SIZE[0], "height": SIZE[1]}],
            "annotations": [{"id": n, "image_id": 1, "category_id": 3} | each for n, each in enumerate(outlines)],
            "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        }
        files[f"annotations/instances_{split}.json"] = json.dumps(document).encode()
        files[f"images/{split}/1.jpg"] = picture(first)
    return files


def people(*, train: int = 3, val: int = 2) -> Files:
    """Return `{train,val}/PERSON/N.jpg`: two people a split."""
    files = {}
    for n, person in enumerate(PEOPLE):
        split, count = ("train", train) if n < 2 else ("val", val)
        files |= {f"{split}/{person}/{shot}.jpg": picture(100 * n + shot) for shot in range(count)}
    return files


def lfw(*, shots: int = 3) -> Files:
    """Return four people, two of which pairs.txt names: two folds of two pairs."""
    files = {
        f"lfw/{person}/{person}_{shot:04d}.jpg": picture(100 * n + shot)
        for n, person in enumerate(PEOPLE)
        for shot in range(1, shots + 1)
    }
    files["pairs.txt"] = b"2\t1\ncy\t1\t2\ncy\t1\tdan\t3\ndan\t2\t3\ndan\t1\tcy\t2\n"
    return files


def celeba(*, count: int = 6) -> Files:
    names = [f"{n:06d}.jpg" for n in range(1, count + 1)]
    rows = [f"{name}  {1 if n % 2 else -1} -1" for n, name in enumerate(names)]
    attributes = "\n".join([str(count), "Eyeglasses Smiling ", *rows])
    return {f"img_align_celeba/{name}": picture(n) for n, name in enumerate(names)} | {
        "list_attr_celeba.txt": attributes.encode(),
        "identity_CelebA.txt": "\n".join(f"{name} {n % 2 + 2 * (n >= 4)}" for n, name in enumerate(names)).encode(),
        "list_eval_partition.txt": "\n".join(f"{name} {int(n >= 4)}" for n, name in enumerate(names)).encode(),
    }


def celeba_landmarks(*, count: int = 6) -> Files:
    """Return the list of landmarks of aligned pictures: the corners of a square and its middle, wider in each picture."""
    points = [(10, 10), (30, 10), (20, 20), (10, 30)]
    rows = [f"{n:06d}.jpg " + " ".join(f"{x} {y}" for x, y in [*points, (30 + n, 30)]) for n in range(1, count + 1)]
    names = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    return {"list_landmarks_align_celeba.txt": "\n".join([str(count), names, *rows]).encode()}


def idx_images(images: Pixels) -> bytes:
    return struct.pack(">4i", 2051, *images.shape) + images.tobytes()


def idx_labels(labels: list[int]) -> bytes:
    return struct.pack(">2i", 2049, len(labels)) + bytes(labels)


def mnist(*, train: int = 6, val: int = 4, packed: bool = False) -> Files:
    files = {}
    for first, (word, count) in enumerate((("train", train), ("t10k", val))):
        images = np.random.default_rng(first).integers(0, 256, (count, 5, 4), dtype=np.uint8)
        files[f"{word}-images-idx3-ubyte"] = idx_images(images)
        files[f"{word}-labels-idx1-ubyte"] = idx_labels([n % 3 for n in range(count)])
    return {f"{name}.gz": gzip.compress(body) for name, body in files.items()} if packed else files


def points() -> Files:
    return {"train.csv": b"x,y\n1,2\n3.5,-4\n5,6e-1\n", "val.csv": b"x,y\n7,8\n"}


def plain_text() -> Files:
    return {"train.txt": b"a cat\na dog\n", "val.txt": "eine Kuh f\u00fcr mich\n".encode()}


def parallel_text() -> Files:
    return {"train.tsv": b"a cat\tune chatte\na dog\tun chien\n", "val.tsv": b"a cow\tune vache\n"}


def safetensors(entries: Mapping[str, tuple[str, list[int], bytes]], *, header: bytes | None = None) -> bytes:
    """Return a file of tensors (type, shape, bytes), one after another, under a true or another header."""
    document, place = {}, 0
    for name, (kind, shape, body) in entries.items():
        document[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, place + len(body)]}
        place += len(body)
    header = json.dumps(document).encode() if header is None else header
    return struct.pack("<Q", len(header)) + header + b"".join(body for _, _, body in entries.values())


def weights() -> Files:
    return {"weights.safetensors": safetensors({"head.weight": ("F32", [2, 3], bytes(24)), "n": ("I64", [], bytes(8))})}


def npy(table: npt.NDArray[Any]) -> bytes:
    target = io.BytesIO()
    np.save(target, table, allow_pickle=table.dtype == object)
    return target.getvalue()
