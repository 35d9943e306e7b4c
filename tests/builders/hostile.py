"""Archives no importer may trip over: each a file, and what the refusal must say about it."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from services.datasets.limits import ImportLimits
from tests.builders import datasets as build

SMALL = ImportLimits(max_members=40, max_total_bytes=8 << 20, max_annotation_bytes=1 << 20)


@dataclass(frozen=True, slots=True)
class Hostile:
    """How to make the archive, and fragments of the refusal's field and description."""

    make: Callable[[Path], Path]
    field: str
    description: str


def _files(files: Mapping[str, bytes]) -> Callable[[Path], Path]:
    return lambda folder: build.zipped(folder / "dataset.zip", files)


def _bytes(body: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "dataset.zip").write_bytes(body)
        return folder / "dataset.zip"

    return make


def _zip(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, body in members:
            packed.writestr(name, body)
    return target.getvalue()


def _zip_mode(name: str, mode: int, body: bytes) -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return _zip((info, body))


def _tar(*members: tarfile.TarInfo, compression: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "dataset.tar"
        with tarfile.open(path, f"w{compression}") as packed:
            for member in members:
                packed.addfile(member, io.BytesIO(b"\0" * member.size))
        return path

    return make


def _member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def _twice() -> bytes:
    """Two members of one name; zipfile warns about writing that, so the name is patched in afterwards."""
    return _zip(("images/a.jpg", b"one"), ("images/b.jpg", b"two")).replace(b"images/b.jpg", b"images/a.jpg")


def _encrypted() -> bytes:
    body = bytearray(_zip(("a.jpg", b"secret")))
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    return bytes(body)


def _lying_size() -> bytes:
    body = bytearray(_zip(("a.jpg", b"x" * 1000)))
    start = body.index(b"PK\x01\x02")
    body[start + 24 : start + 28] = struct.pack("<I", 10)
    return bytes(body)


def _broken_crc() -> bytes:
    body = bytearray(_zip(("a.jpg", b"x" * 1000)))
    start = body.index(b"PK\x01\x02")
    body[start + 16] ^= 0xFF
    return bytes(body)


def _sparse(folder: Path) -> Path:
    """A tar member that claims a gigabyte and stores one block (old GNU sparse header)."""
    header = bytearray(tarfile.TarInfo("images/a.jpg").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % (1 << 30)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (folder / "dataset.tar").write_bytes(bytes(header) + bytes(1024))
    return folder / "dataset.tar"


def _gz_cut(folder: Path) -> Path:
    path = build.tarred(folder / "dataset.tar.gz", build.coco().content())
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def _tar_cut(folder: Path) -> Path:
    path = build.tarred(folder / "dataset.tar", build.coco().content())
    path.write_bytes(path.read_bytes()[:5000])
    return path


def _coco(change: Callable[[build.CocoFolder], Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        dataset = build.coco()
        change(dataset)
        return build.zipped(folder / "dataset.zip", dataset.content())

    return make


def _annotation(**fields: Any) -> Callable[[Path], Path]:
    return _coco(lambda dataset: dataset.splits["train"]["annotations"][1].update(fields))


def _image(body: bytes) -> Callable[[Path], Path]:
    return _coco(lambda dataset: dataset.files.update({"images/train/2.jpg": body}))


def _json(text: str) -> Callable[[Path], Path]:
    return _coco(lambda dataset: dataset.files.update({"annotations/instances_train.json": text.encode()}))


def _voc(name: str, text: str) -> Callable[[Path], Path]:
    return _files({**build.voc(), name: text.encode()})


def _yolo(name: str, text: str) -> Callable[[Path], Path]:
    return _files({**build.yolo(), name: text.encode()})


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


_TRAIN = "annotations/instances_train.json"
_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(10))
_ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
_NOISE = build.picture(1)

ARCHIVES: dict[str, Hostile] = {
    "zip that climbs out": Hostile(_files({"../../evil.txt": b"x"}), "evil.txt", "leaves the archive's folder"),
    "zip with an absolute name": Hostile(_files({"/etc/cron.d/evil": b"x"}), "/etc/cron.d", "absolute"),
    "zip with a drive letter": Hostile(_files({"C:/evil.txt": b"x"}), "C:", "absolute"),
    "zip with backslashes": Hostile(_files({"..\\evil.txt": b"x"}), "evil", "backslash"),
    "zip with control characters": Hostile(_files({"a\x1b[2Jb.jpg": b"x"}), "b.jpg", "control characters"),
    "zip with a symlink": Hostile(_bytes(_zip_mode("images/a.jpg", 0o120777, b"/etc/passwd")), "a.jpg", "link"),
    "zip with a device": Hostile(_bytes(_zip_mode("images/a.jpg", 0o020666, b"")), "a.jpg", "device"),
    "zip with a name twice": Hostile(_bytes(_twice()), "a.jpg", "twice"),
    "zip bomb": Hostile(_bytes(_zip(("a.json", bytes(4 << 20)))), "a.json", "100 times its size"),
    "zip over the total limit": Hostile(
        _bytes(_zip(*((f"{n}.jpg", np.random.default_rng(n).bytes(1 << 20)) for n in range(9)))), "jpg", "GiB; split"
    ),
    "zip with a password": Hostile(_bytes(_encrypted()), "a.jpg", "password"),
    "zip with a lying size": Hostile(_bytes(_lying_size()), "archive", "damaged"),
    "zip with a broken checksum": Hostile(_bytes(_broken_crc()), "archive", "damaged"),
    "zip cut short": Hostile(_bytes(_zip(("a.jpg", _NOISE))[:-30]), "archive", "damaged"),
    "zip of too many members": Hostile(_files({f"{n}.jpg": b"" for n in range(41)}), "archive", "more than 40 members"),
    "zip of a deep tree": Hostile(_files({"a/" * 17 + "b": b"x"}), "a/a", "folders deep"),
    "zip with a long name": Hostile(_files({"n" * 300 + ".jpg": b"x"}), "nnn", "too long"),
    "zip whose file is also a folder": Hostile(
        _files({"a": b"x", "a/b.jpg": b"x"}), "a/b.jpg", "both a file and a folder"
    ),
    "zip of nothing": Hostile(_bytes(_zip()), "dataset", "holds no file"),
    "tar that climbs out": Hostile(_tar(_member("images/../../evil")), "evil", "leaves the archive's folder"),
    "tar with an absolute name": Hostile(_tar(_member("/tmp/evil")), "/tmp/evil", "absolute"),
    "tar with a symlink": Hostile(_tar(_member("a", tarfile.SYMTYPE, link="/etc")), "a", "link"),
    "tar with a hard link": Hostile(_tar(_member("a", tarfile.LNKTYPE, link="/etc/passwd")), "a", "link"),
    "tar with a device": Hostile(_tar(_member("a", tarfile.CHRTYPE)), "a", "device"),
    "tar with a pipe": Hostile(_tar(_member("a", tarfile.FIFOTYPE)), "a", "device"),
    "tar with a sparse file": Hostile(_sparse, "a.jpg", "sparse"),
    "tar with a name twice": Hostile(_tar(_member("a.jpg"), _member("./a.jpg")), "a.jpg", "twice"),
    "tar cut short": Hostile(_tar_cut, "archive", "damaged"),
    "gz bomb": Hostile(_tar(_member("a.json", size=4 << 20), compression=":gz"), "a.json", "100 times its size"),
    "gz cut short": Hostile(_gz_cut, "archive", "damaged"),
    "an empty file": Hostile(_bytes(b""), "archive", "not a zip, tar or tar.gz"),
    "a file of noise": Hostile(_bytes(np.random.default_rng(0).bytes(5000)), "archive", "not a zip, tar or tar.gz"),
    "a script": Hostile(_bytes(b"#!/bin/sh\nrm -rf /\n"), "archive", "not a zip, tar or tar.gz"),
}

CONTENTS: dict[str, Hostile] = {
    "no image": Hostile(_files({"annotations.json": b"{}"}), "dataset", "no JPEG, PNG or WEBP"),
    "images of another kind only": Hostile(_files({"a.tiff": b"x"}), "dataset", "must be converted"),
    "no annotation": Hostile(_files({"a.jpg": _NOISE}), "dataset", "no annotations found"),
    "broken json": Hostile(_json('{"images": [\n{"id": 1,}\n]}'), _TRAIN, "line 2, column 10"),
    "json with NaN": Hostile(_json('{"images": [], "annotations": [NaN], "categories": []}'), _TRAIN, "NaN"),
    "json of endless depth": Hostile(_json('{"images": ' + "[" * 200_000), _TRAIN, "not readable JSON"),
    "json that is a list": Hostile(_json('["images"]'), _TRAIN, "top level must be an object"),
    "json without images": Hostile(
        _json('{"annotations": [], "categories": []}'), f"{_TRAIN}: images", "must be a list"
    ),
    "json in Latin-1": Hostile(
        _coco(lambda d: d.files.update({_TRAIN: '{"images": "é"}'.encode("latin-1")})), _TRAIN, "UTF-8"
    ),
    "json too large": Hostile(_json('{"images": []}' + " " * (1 << 20)), _TRAIN, "larger than 1 MiB"),
    "a missing image": Hostile(_coco(lambda d: d.files.pop("images/train/2.jpg")), "2.jpg", "not in the dataset"),
    "an image outside": Hostile(
        _coco(lambda d: d.splits["train"]["images"][1].update(file_name="../../../../etc/passwd")),
        "images[1]: ../../../../etc/passwd",
        "not in the dataset",
    ),
    "an image id twice": Hostile(_coco(lambda d: d.splits["train"]["images"][1].update(id=1)), "images[1]", "twice"),
    "an image of another size than stated": Hostile(
        _coco(lambda d: d.splits["train"]["images"][1].update(width=640)), "images[1]", "annotated as 640x48"
    ),
    "an unknown category": Hostile(_annotation(category_id=99), "annotations[1].category_id", "99 is not among"),
    "a category of the wrong type": Hostile(_annotation(category_id=[7]), "annotations[1].category_id", "not among"),
    "a box outside its image": Hostile(
        _annotation(bbox=[50, 10, 30, 10]), "annotations[1].bbox", "reaches out of its 64x48"
    ),
    "a box of negative width": Hostile(_annotation(bbox=[50, 10, -5, 10]), "annotations[1].bbox", "negative"),
    "a box of text": Hostile(_annotation(bbox=["1", 2, 3, 4]), "annotations[1].bbox", "four numbers"),
    "a box at infinity": Hostile(_annotation(bbox=[1e300, 0, 1, 1]), "annotations[1].bbox", "four numbers"),
    "an annotation without image": Hostile(_annotation(image_id=999), "annotations[1]", "not among the images"),
    "two categories of one name": Hostile(
        _coco(lambda d: [s["categories"][1].update(name="cat") for s in d.splits.values()]),
        "categories",
        "share a name",
    ),
    "a category that means two things": Hostile(
        _coco(lambda d: d.splits["val"]["categories"][0].update(name="bird")),
        "instances_val.json: categories[0]",
        "one name",
    ),
    "a class name with escape codes": Hostile(
        _coco(lambda d: [s["categories"][0].update(name="\x1b[2J") for s in d.splits.values()]), "classes", "printable"
    ),
    "a truncated jpeg": Hostile(_image(_NOISE[: len(_NOISE) // 2]), "images/train/2.jpg", "damaged"),
    "an image without bytes": Hostile(_image(b""), "images/train/2.jpg", "empty"),
    "text called jpg": Hostile(_image(b"hello"), "images/train/2.jpg", "not a JPEG, PNG or WEBP"),
    "a gif called jpg": Hostile(
        _image(_encoded(Image.new("RGB", (64, 48)), "GIF")), "2.jpg", "not a JPEG, PNG or WEBP"
    ),
    "a pixel bomb": Hostile(_image(_png_header(8000, 8000)), "images/train/2.jpg", "50 million pixels"),
    "a pixel bomb beyond Pillow's own limit": Hostile(
        _image(_png_header(50_000, 50_000)), "2.jpg", "50 million pixels"
    ),
    "a png without pixels": Hostile(_image(_png_header(64, 48)), "images/train/2.jpg", "damaged"),
    "16 bits a pixel": Hostile(_image(_encoded(Image.new("I;16", (64, 48)), "PNG")), "2.jpg", "8-bit RGB"),
    "an animation": Hostile(
        _image(
            _encoded(
                Image.new("RGB", (64, 48)), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")]
            )
        ),
        "2.jpg",
        "animated",
    ),
    "one image only": Hostile(
        lambda folder: build.zipped(folder / "dataset.zip", build.coco(train=1, val=0).content()),
        "dataset",
        "at least two",
    ),
    "no box at all": Hostile(
        _coco(lambda d: [split["annotations"].clear() for split in d.splits.values()]), "dataset", "annotate some"
    ),
    "voc with a billion laughs": Hostile(
        _voc("Annotations/000001.xml", f"<!DOCTYPE x [{_LAUGHS}]><annotation>&l9;</annotation>"),
        "000001.xml",
        "entities",
    ),
    "voc that reads a file": Hostile(
        _voc(
            "Annotations/000001.xml",
            '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation><filename>&f;</filename></annotation>',
        ),
        "000001.xml",
        "not allowed",
    ),
    "voc cut short": Hostile(
        _voc("Annotations/000001.xml", "<annotation>\n<object>"), "000001.xml", "not XML at line 2"
    ),
    "voc of another root": Hostile(_voc("Annotations/000001.xml", "<html></html>"), "000001.xml", "not <annotation>"),
    "voc without a corner": Hostile(
        _voc("Annotations/000001.xml", build.voc_xml("000001.jpg", "cat").replace("<xmax>30</xmax>", "")),
        "000001.xml: object[0]/bndbox",
        "four numbers",
    ),
    "voc without its image": Hostile(
        _files({name: body for name, body in build.voc().items() if name != "JPEGImages/000001.jpg"}),
        "000001.xml: filename",
        "'000001.jpg'",
    ),
    "voc with a box outside": Hostile(
        _voc("Annotations/000001.xml", build.voc_xml("000001.jpg", "cat", corners=(1, 1, 90, 40))),
        "000001.xml",
        "reaches out of its",
    ),
    "yolo class out of range": Hostile(
        _yolo("labels/train/1.txt", "2 .5 .5 .1 .1"), "1.txt: line 1", "not among the 2"
    ),
    "yolo in pixels": Hostile(_yolo("labels/train/1.txt", "0 .5 .5 .1 .1\n0 20 30 10 10"), "1.txt: line 2", "shares"),
    "yolo polygons": Hostile(_yolo("labels/train/1.txt", "0 .1 .1 .2 .1 .2 .2 .1 .2"), "line 1", "polygons"),
    "yolo of text": Hostile(_yolo("labels/train/1.txt", "cat .5 .5 .1 .1"), "line 1", "not numbers"),
    "yolo not a number": Hostile(_yolo("labels/train/1.txt", "0 nan .5 .1 .1"), "line 1", "not finite"),
    "yolo outside": Hostile(_yolo("labels/train/1.txt", "0 .95 .5 .3 .1"), "line 1", "reaches out of its"),
    "yolo without names": Hostile(_yolo("data.yaml", "train: images/train"), "data.yaml: names", "list of class names"),
    "yolo yaml cut short": Hostile(_yolo("data.yaml", "names: [cat, dog"), "data.yaml", "not YAML at line"),
    "yolo yaml that builds an object": Hostile(
        _yolo("data.yaml", "names: !!python/object/apply:os.system ['true']"), "data.yaml", "not YAML"
    ),
    "yolo yaml alias bomb": Hostile(_yolo("data.yaml", _ALIASES + "names: [*a9, b]"), "names", "plain text"),
    "yolo label without image": Hostile(_yolo("labels/train/77.txt", "0 .5 .5 .1 .1"), "77.txt", "no image belongs"),
}
