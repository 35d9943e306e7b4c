"""What no importer of the newer layouts may trip over: each a file, and what the refusal must say about it."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.builders import datasets as build
from tests.builders import family_datasets as family
from tests.builders.hostile import Hostile

_PICTURE = build.picture(7)
_INDICES = family.mask(0)
_TWO_TONE = np.where(_INDICES == 1, np.uint8(255), np.uint8(0))


def _files(files: family.Files, **changes: bytes | None) -> Callable[[Path], Path]:
    return lambda folder: build.zipped(folder / "dataset.zip", _changed(files, changes))


def _changed(files: family.Files, changes: dict[str, bytes | None]) -> family.Files:
    changed = {name: body for name, body in files.items() if changes.get(name, body) is not None}
    return changed | {name: body for name, body in changes.items() if body is not None}


def _masks(name: str, body: bytes | None) -> Callable[[Path], Path]:
    return _files(family.mask_pairs(), **{name: body})


def _pairs(**changes: bytes | None) -> Callable[[Path], Path]:
    return _files(family.aligned(train=4), **changes)


def _domains(**changes: bytes | None) -> Callable[[Path], Path]:
    return _files(family.unaligned(), **changes)


def _runs(row: str) -> Callable[[Path], Path]:
    """Put one row more into the table of the val split."""
    files = family.rle_csv()
    return _files(files, **{"val.csv": files["val.csv"] + b"\n" + row.encode("latin-1")})


def _lfw(text: str) -> Callable[[Path], Path]:
    return _files(family.lfw(), **{"pairs.txt": text.encode()})


def _celeba(name: str, old: str, new: str) -> Callable[[Path], Path]:
    files = family.celeba()
    return _files(files, **{name: files[name].replace(old.encode(), new.encode(), 1)})


def _mnist(name: str, body: bytes | None) -> Callable[[Path], Path]:
    return _files(family.mnist(), **{name: body})


def _points(body: bytes) -> Callable[[Path], Path]:
    return _files(family.points(), **{"train.csv": body})


def _text(body: bytes) -> Callable[[Path], Path]:
    return _files(family.plain_text(), **{"train.txt": body})


def _text_pairs(body: bytes) -> Callable[[Path], Path]:
    return _files(family.parallel_text(), **{"train.tsv": body})


def _weights(body: bytes) -> Callable[[Path], Path]:
    return _files({"net.safetensors": body})


def _tensor(kind: str, shape: list[int], body: bytes, header: bytes | None = None) -> Callable[[Path], Path]:
    return _weights(family.safetensors({"a": (kind, shape, body)}, header=header))


_OF = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]},"b":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}}'
_TRAIN_IMAGES, _TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
_BLURRED = np.repeat(_INDICES[..., None], 3, axis=2) + np.array([1, 0, 0], dtype=np.uint8)
_VOC = family.voc_masks()

FAMILIES: dict[str, Hostile] = {
    # folders
    "folders of one class": Hostile(
        _files(family.image_folder(classes=("cat",))), "dataset", "no annotations found; images alone"
    ),
    "a class that train lacks": Hostile(
        _files(family.image_folder(), **{"val/owl/1.png": _PICTURE}), "class 'owl'", "in val but none in train"
    ),
    "a class that val lacks": Hostile(
        _files(family.image_folder(), **{"train/owl/1.png": _PICTURE}), "class 'owl'", "in train but none in val"
    ),
    "a misspelt split": Hostile(
        _files(family.image_folder(), **{"valdation/cat/1.png": _PICTURE}), "valdation", "did you mean 'validation'?"
    ),
    "a folder beside the splits": Hostile(
        _files(family.image_folder(), **{"more/cat/1.png": _PICTURE}), "more", "is no split"
    ),
    "a truncated image in a folder": Hostile(
        _files(family.image_folder(), **{"train/cat/9.jpg": _PICTURE[:200]}), "train/cat/9.jpg", "damaged"
    ),
    "a misspelt folder": Hostile(
        _files({"a.jpg": _PICTURE, "anotations/a.txt": b"0 0 1 1"}), "anotations", "'annotations'"
    ),
    # masks
    "a mask of another size": Hostile(
        _masks("masks/val/1.png", family.png(family.mask(0, size=(32, 48)))), "masks/val/1.png", "32x48, but its image"
    ),
    "a mask with an unknown class": Hostile(
        _masks("masks/val/1.png", family.png(np.full_like(_INDICES, 9))), "masks/val/1.png", "value 9 is none"
    ),
    "a mask in colours without a list of them": Hostile(
        _masks("masks/val/1.png", family.png(_BLURRED)), "masks/val/1.png", "give every class its colour"
    ),
    "a mask stored with loss": Hostile(_masks("masks/val/1.png", _PICTURE), "masks/val/1.png", "as PNG"),
    "a mask cut short": Hostile(_masks("masks/val/1.png", family.png(_INDICES)[:80]), "masks/val/1.png", "damaged"),
    "an image without a mask": Hostile(_masks("masks/val/1.png", None), "images/val/1.jpg", "has no mask"),
    "a mask without an image": Hostile(_masks("images/val/1.jpg", None), "masks/val/1.png", "remove the mask"),
    "masks without a list of classes": Hostile(_masks("classes.txt", None), "classes.txt", "one class a line"),
    "a class twice": Hostile(_masks("classes.txt", b"road\nroad\n"), "classes.txt", "only once"),
    "colours for some classes": Hostile(_masks("classes.txt", b"road\ncar 1 2 3\n"), "classes.txt", "1 of 2"),
    "a colour above 255": Hostile(_masks("classes.txt", b"road 0 0 256\ncar 1 2 3\n"), "classes.txt", "0 to 255"),
    "masks of one class": Hostile(
        _files({n: family.png(_INDICES * 0) if n.startswith("masks") else b for n, b in family.mask_pairs().items()}),
        "dataset",
        "show only 'background'",
    ),
    "masks of 0 and 255": Hostile(
        _files({n: family.png(_TWO_TONE) if n.startswith("masks") else b for n, b in family.mask_pairs().items()}),
        "dataset",
        "store objects as 1, 2, ...",
    ),
    "voc mask listed but missing": Hostile(
        _files(_VOC, **{"SegmentationClass/2007_000001.png": None}), "2007_000001", "is missing"
    ),
    "voc mask without its image": Hostile(
        _files(_VOC, **{"JPEGImages/2007_000001.jpg": None}), "2007_000001.png", "no image 2007_000001"
    ),
    # pairs
    "an input without a target": Hostile(_pairs(**{"B/train/1.png": None}), "A/train/1.jpg", "add 1 under B/"),
    "a target without an input": Hostile(_pairs(**{"A/val/1.jpg": None}), "B/val/1.png", "add 1 under A/"),
    "a target of another size": Hostile(
        _pairs(**{"B/val/1.png": build.picture(1, (63, 48))}), "B/val/1.png", "is 63x48, but its partner is 64x48"
    ),
    "a target cut short": Hostile(_pairs(**{"B/val/1.png": _PICTURE[:200]}), "B/val/1.png", "damaged"),
    "a target that is empty": Hostile(_pairs(**{"B/val/1.png": b""}), "B/val/1.png", "empty"),
    "two inputs of one stem": Hostile(_pairs(**{"A/val/1.png": _PICTURE}), "A/val/1.png", "the stem of A/val/1.jpg"),
    "a partner in another split": Hostile(
        _pairs(**{"B/val/1.png": None, "B/train/9.png": _PICTURE}), "A/val/1.jpg", "in the same split"
    ),
    # domains
    "an image beside the domains": Hostile(_domains(**{"more/1.jpg": _PICTURE}), "more/1.jpg", "move it into trainA"),
    "a domain without training images": Hostile(
        _domains(**{f"trainB/{n}.jpg": None for n in range(3)}), "domain 'B'", "no image in train"
    ),
    "a broken image of a domain": Hostile(_domains(**{"testB/1.jpg": _PICTURE[:99]}), "testB/1.jpg", "damaged"),
    # run lengths in tables
    "runs of an odd number": Hostile(_runs("10.jpg,1,5 3 9"), "val.csv: line 4", "has 3 numbers"),
    "runs of words": Hostile(_runs("10.jpg,1,5 three"), "val.csv: line 4", "not whole numbers"),
    "runs with a sign": Hostile(_runs("10.jpg,1,5 -3"), "val.csv: line 4", "not whole numbers"),
    "runs of huge numbers": Hostile(_runs("10.jpg,1,5 " + "9" * 5000), "val.csv: line 4", "not whole numbers"),
    "runs from 0": Hostile(_runs("10.jpg,1,0 3"), "val.csv: line 4", "count from 1"),
    "a run of nothing": Hostile(_runs("10.jpg,1,3 0"), "val.csv: line 4", "one at least"),
    "runs that overlap": Hostile(_runs("10.jpg,1,9 4 5 5"), "val.csv: line 4", "overlap at pixel 9"),
    "runs that leave the image": Hostile(_runs("10.jpg,1,3071 3 1 2"), "val.csv: line 4", "end at pixel 3073"),
    "runs of two classes at one place": Hostile(
        _runs("10.jpg,1,1 4\n10.jpg,2,3 4"), "val.csv: line 4", "line 5: 2 of its pixels belong to another"
    ),
    "runs of an image that is not there": Hostile(_runs("99.jpg,1,1 4"), "val.csv: line 4", "no image '99.jpg'"),
    "runs of an image of another split": Hostile(_runs("00.jpg,1,1 4"), "val.csv: line 4", "no image '00.jpg' of"),
    "runs of an unknown class": Hostile(_runs("10.jpg,0,1 4"), "val.csv: line 4", "class '0' is none of 1 to 254"),
    "runs of too many classes": Hostile(_runs("10.jpg,255,1 4"), "val.csv: line 4", "class '255' is none"),
    "runs of one class twice": Hostile(_runs("11.jpg,1,1 4"), "val.csv: line 4", "class of val.csv: line 2"),
    "a row of run lengths cut short": Hostile(_runs("10.jpg,1"), "val.csv: line 4", "has 2 values"),
    "a table of run lengths in Latin-1": Hostile(_runs("\u00e9.jpg,1,1 4"), "val.csv", "not UTF-8"),
    "a table without classes": Hostile(
        _files(family.rle_csv(), **{"val.csv": b"ImageId,EncodedPixels\n10.jpg,1 4\n"}), "val.csv", "needs the columns"
    ),
    # faces
    "pairs without a count": Hostile(_lfw("cy\t1\t2\n"), "pairs.txt", "must begin with the number"),
    "pairs cut short": Hostile(_lfw("2\t1\ncy\t1\t2\n"), "pairs.txt", "announces 4 pairs but lists 1"),
    "a pair of five words": Hostile(_lfw("1\t1\ncy 1 2\ncy 1 dan 2 x\n"), "line 3", "person n person m"),
    "a pair of an image that is not there": Hostile(
        _lfw("1\t1\ncy 1 99\ncy 1 dan 2\n"), "pairs.txt: line 2", "no image cy/cy_0099"
    ),
    "pairs that name everybody": Hostile(
        _lfw("2\t1\ncy 1 2\ncy 1 dan 3\nann 1 2\nann 1 bob 2\n"), "pairs.txt", "nobody is left to train on"
    ),
    "celeba with a missing image": Hostile(
        _files(family.celeba(), **{"img_align_celeba/000002.jpg": None}), "000002.jpg", "add the image"
    ),
    "celeba attributes cut short": Hostile(
        _celeba("list_attr_celeba.txt", "000003.jpg  -1 -1", "000003.jpg  -1"), "line 5", "needs 2 values"
    ),
    "celeba with a strange split": Hostile(
        _celeba("list_eval_partition.txt", "000006.jpg 1", "000006.jpg 7"), "000006.jpg", "must be 0, 1 or 2"
    ),
    # MNIST
    "mnist without labels": Hostile(_mnist(_TRAIN_LABELS, None), _TRAIN_IMAGES, "labels file of 'train' is missing"),
    "mnist cut short": Hostile(_mnist(_TRAIN_IMAGES, family.idx_images(np.zeros((6, 5, 4), np.uint8))[:-3]), "", "117"),
    "mnist with another magic": Hostile(_mnist(_TRAIN_IMAGES, b"\0\0\x08\x01" + bytes(400)), "", "not 2051"),
    "mnist that promises too much": Hostile(
        _mnist(_TRAIN_IMAGES, struct.pack(">4i", 2051, 2**31 - 1, 28, 28)), "", "its header says"
    ),
    "mnist of negative size": Hostile(_mnist(_TRAIN_IMAGES, struct.pack(">4i", 2051, -1, 28, 28)), "", "impossible"),
    "mnist with a label too few": Hostile(_mnist(_TRAIN_LABELS, family.idx_labels([1])), _TRAIN_LABELS, "1 labels"),
    "mnist with broken gzip": Hostile(
        _mnist(_TRAIN_IMAGES, gzip.compress(bytes(500))[:20]), _TRAIN_IMAGES, "cannot be unpacked"
    ),
    # points
    "points of text": Hostile(_points(b"x,y\n1,2\n3,many\n"), "train.csv", "line 3 holds 'many'"),
    "points with a gap": Hostile(_points(b"x,y\n1,2\n3\n"), "train.csv", "line 3 has 1 values"),
    "points that are not numbers": Hostile(_points(b"x,y\n1,2\n3,nan\n"), "train.csv", "row 2 holds"),
    "points too large for 32 bits": Hostile(_points(b"x,y\n1,2\n3,1e200\n"), "train.csv", "row 2 holds"),
    "points of another width": Hostile(_points(b"x,y,z\n1,2,3\n"), "val.csv", "other tables have 3"),
    "points of nothing": Hostile(_points(b""), "train.csv", "no row of numbers"),
    "points in Latin-1": Hostile(_points("é,y\n1,2\n".encode("latin-1")), "train.csv", "UTF-8"),
    "a table of objects": Hostile(_files({"train.npy": family.npy(np.array([[{}]]))}), "train.npy", "numpy.save"),
    "a table of words": Hostile(_files({"train.npy": family.npy(np.array([["a"]]))}), "train.npy", "real numbers"),
    "a table of three dimensions": Hostile(
        _files({"train.npy": family.npy(np.zeros((2, 2, 2)))}), "train.npy", "a point a row"
    ),
    "a table that promises too much": Hostile(
        _files({"train.npy": family.npy(np.zeros((2, 2))).replace(b"(2, 2)", b"(2, 9)")}), "train.npy", "numpy.save"
    ),
    # texts
    "a text in Latin-1": Hostile(
        _text("eins\nzw\u00f6lf\n".encode("latin-1")),
        "train.txt: line 2",
        "0xf6 is not UTF-8; save the file as UTF-8, such as by `iconv -f latin1 -t utf-8`",
    ),
    "a text in UTF-16": Hostile(_text("eins\n".encode("utf-16")), "train.txt: line 1", "save the file as UTF-8"),
    "a text with zeros": Hostile(_text(b"one\r\ntwo\0\r\n"), "train.txt: line 2", "zero character"),
    "a text of nothing": Hostile(_text(b" \n\n"), "train.txt", "holds no text"),
    "a text of one word": Hostile(_files({"novel.txt": b"one"}), "dataset", "too short"),
    "a text for evaluation alone": Hostile(_files({"val.txt": b"one\ntwo\n"}), "dataset", "no train split"),
    "texts of some splits": Hostile(_files({"val.txt": b"a b\n", "novel.txt": b"a b\n"}), "dataset", "others do not"),
    "a pair of three": Hostile(_text_pairs(b"a\tb\na\tb\tc\n"), "train.tsv: line 2", "has 2 tabs"),
    "a pair of one": Hostile(_text_pairs(b"a\tb\n\nc\td\n"), "train.tsv: line 2", "has 0 tabs"),
    "a pair without a target": Hostile(_text_pairs(b"a\tb\nc\t \n"), "train.tsv: line 2", "no target"),
    "pairs in Latin-1": Hostile(_text_pairs(b"a\tb\nc\t\xe9\n"), "train.tsv: line 2", "0xe9 is not UTF-8"),
    "unequal texts": Hostile(_files({"a.src": b"a\nb\n", "a.tgt": b"a\n"}), "a.src", "has 2 lines, a.tgt has 1"),
    "a source alone": Hostile(_files({"a.src": b"a\nb\n"}), "a.src", "no a.tgt beside it"),
    "a target alone": Hostile(_files({"a.tgt": b"a\nb\n"}), "a.tgt", "no a.src beside it"),
    "a tab in a source": Hostile(_files({"a.src": b"a\tb\n", "a.tgt": b"a\n"}), "a.src: line 1", "holds a tab"),
    # weights
    "pickled weights": Hostile(_files({"net.pth": pickle.dumps({})}), "net.pth", "runs code"),
    "weights in two files": Hostile(
        _files({"a.safetensors": family.weights()["weights.safetensors"], "b.safetensors": b""}),
        "b.safetensors",
        "give one",
    ),
    "weights of nothing": Hostile(_weights(b""), "net.safetensors", "cut short"),
    "weights without a tensor": Hostile(_weights(family.safetensors({})), "net.safetensors", "no tensor"),
    "weights cut short": Hostile(
        _weights(family.weights()["weights.safetensors"][:-1]), "net.safetensors", "one after another"
    ),
    "weights with a header that promises too much": Hostile(
        _weights(struct.pack("<Q", 2**63) + bytes(64)), "net.safetensors", "cut short"
    ),
    "weights with a broken header": Hostile(
        _tensor("F32", [1], bytes(4), b"{'a'"), "net.safetensors", "cannot be read"
    ),
    "weights with a deep header": Hostile(
        _tensor("F32", [1], bytes(4), b"[" * 100_000), "net.safetensors", "cannot be read"
    ),
    "weights with a list for a header": Hostile(_tensor("F32", [1], bytes(4), b"[1]"), "net.safetensors", "no object"),
    "weights with a field too many": Hostile(
        _tensor("F32", [1], bytes(4), b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}'),
        "net.safetensors",
        "cannot be read",
    ),
    "weights of a negative shape": Hostile(_tensor("F32", [-1, -1], bytes(4)), "net.safetensors", "does not take 4"),
    "weights of another size": Hostile(_tensor("F32", [2**40], bytes(4)), "net.safetensors", "does not take 4"),
    "weights of an unknown type": Hostile(_tensor("F8_E4M3", [4], bytes(4)), "net.safetensors", "save it as one of"),
    "weights that overlap": Hostile(
        _tensor("F32", [2], bytes(8), _OF % (0, 8, 4, 8)), "net.safetensors", "one after another"
    ),
    "weights with a hole": Hostile(
        _tensor("F32", [4], bytes(16), _OF % (0, 8, 12, 16)), "net.safetensors", "one after another"
    ),
    "weights that are not numbers": Hostile(
        _tensor("F32", [2], np.array([0, np.nan], "f4").tobytes()),
        "net.safetensors",
        "a holds values that are not finite",
    ),
    "infinite half weights": Hostile(
        _tensor("BF16", [2], struct.pack("<2H", 0, 0xFF80)), "net.safetensors", "a holds values that are not finite"
    ),
    "one point": Hostile(_files({"points.csv": b"1,2\n"}), "dataset", "at least two points"),
}
