"""Archives and annotations that chance has spoiled: imported, or refused in words, and never anything else."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.core.errors import DatasetInvalid
from services.datasets.archive import unpack
from services.datasets.importer import import_folder
from tests.builders import datasets as build
from tests.builders import family_datasets as family
from tests.builders.hostile import SMALL

SPOILED = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
MANY = settings(SPOILED, max_examples=150)
FEW = settings(SPOILED, max_examples=12)
_SMALL_PICTURES = [build.picture(seed, (8 + seed % 2, 8), form="PNG") for seed in range(4)]


def outcome(archive: bytes, wanted: str | None = None) -> str:
    """Import an archive and return `imported` or `refused`; every other end is an error of the test."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "archive").write_bytes(archive)
        (root / "out").mkdir()
        refusal = _refusal(root, wanted)
        if refusal is None:
            assert (root / "out" / "dataset.json").exists()
            return "imported"
        assert refusal.violations
        assert all(one.field.isprintable() and one.description.isprintable() for one in refusal.violations)
        assert name not in str(refusal), "where this machine keeps the files is nobody's business"
        assert not list(root.glob("*.part"))
        return "refused"


def _refusal(root: Path, wanted: str | None) -> DatasetInvalid | None:
    try:
        unpack(root / "archive", root / "unpacked", SMALL)
        import_folder(root / "unpacked", root / "out", source_format=None, family=wanted, limits=SMALL)
    except DatasetInvalid as err:
        return err
    return None


class Bytes(bytes):
    """Bytes too many to be shown."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes of sha256 {hashlib.sha256(self).hexdigest()[:16]}>"


@cache
def whole(kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a"
        make: dict[str, Callable[[], Path]] = {
            "coco": lambda: build.zipped(path, build.coco().content()),
            "voc": lambda: build.zipped(path, build.voc()),
            "yolo": lambda: build.zipped(path, build.yolo()),
            "tar": lambda: build.tarred(path.with_suffix(".tar"), build.coco().content()),
            "gz": lambda: build.tarred(path.with_suffix(".tar.gz"), build.coco().content()),
        }
        return make[kind]().read_bytes()


def packed(files: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        return build.zipped(Path(name) / "a.zip", files).read_bytes()


@st.composite
def spoiled(draw: st.DrawFn, body: bytes) -> Bytes:
    """Bytes changed, doubled, left out or cut off, by chance."""
    found = bytearray(body)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        what = draw(st.sampled_from(("change", "change", "insert", "remove", "cut", "double")))
        if what == "change" and found:
            found[at] = draw(st.integers(0, 255))
        elif what == "insert":
            found[at:at] = draw(st.binary(max_size=20))
        elif what == "remove":
            del found[at : at + draw(st.integers(1, 50))]
        elif what == "cut":
            del found[at:]
        else:
            found[at:at] = found[at : at + 200]
    return Bytes(found)


def test_what_is_not_spoiled_is_imported() -> None:
    assert {outcome(whole(kind)) for kind in ("coco", "voc", "yolo", "tar", "gz")} == {"imported"}


@MANY
@given(st.sampled_from(("coco", "voc", "yolo", "tar", "gz")).flatmap(lambda kind: spoiled(whole(kind))))
def test_a_spoiled_archive_is_imported_or_refused(archive: bytes) -> None:
    outcome(archive)


@SPOILED
@given(st.binary(max_size=2000).map(lambda body: b"PK\x03\x04" + body) | st.binary(max_size=2000))
@example(b"")
@example(b"\x1f\x8b" + b"\0" * 30)
@example(b"\0" * 257 + b"ustar\x0000" + b"\0" * 300)
def test_bytes_that_only_begin_like_an_archive_are_refused(archive: bytes) -> None:
    assert outcome(archive) == "refused"


@SPOILED
@given(st.sampled_from(("JPEG", "PNG", "WEBP")).flatmap(lambda form: spoiled(build.picture(1, form=form))))
def test_a_spoiled_picture_is_imported_or_refused(picture: bytes) -> None:
    folder = build.coco()
    folder.files["images/train/2.jpg"] = picture
    outcome(packed(folder.content()))


@FEW
@given(spoiled(family.rle_csv()["train.csv"]) | st.text(max_size=80).map(lambda text: text.encode()))
@example(b"ImageId,ClassId,EncodedPixels\n00.jpg,1," + b"9" * 5000)
@example(b"ImageId,ClassId,EncodedPixels\n../00.jpg,1,1 999999999999\n\0,1,1 1\n,,")
def test_any_table_of_run_lengths_is_imported_or_refused(table: bytes) -> None:
    outcome(packed({**family.rle_csv(), "train.csv": table}))


_folders = st.lists(st.sampled_from(("A", "B", "a", "train", "val", "trainA", "testB", "cat", "\u00e9")), max_size=3)


@SPOILED
@given(
    st.sampled_from(("pairs", "domains", None)),
    st.lists(st.tuples(_folders, st.sampled_from(("1", "2", "A")), st.integers(0, 3)), max_size=12),
)
@example("pairs", [(["A"], "1", 0), (["B"], "1", 0), (["A"], "2", 1), (["B"], "2", 0)])
@example("domains", [(["A"], "1", 0), (["B"], "1", 0)])
def test_any_folders_of_pictures_are_imported_or_refused(
    wanted: str | None, files: list[tuple[list[str], str, int]]
) -> None:
    outcome(packed({"/".join((*parts, f"{stem}.png")): _SMALL_PICTURES[n] for parts, stem, n in files}), wanted)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@MANY
@given(
    st.sampled_from(("images", "annotations", "categories")),
    st.sampled_from(("id", "file_name", "width", "image_id", "category_id", "bbox", "iscrowd", "area", "name", "")),
    _values,
)
def test_a_coco_field_of_any_value_is_imported_or_refused(section: str, field: str, value: Any) -> None:
    folder = build.coco()
    if field:
        folder.splits["train"][section][0][field] = value
    else:
        folder.splits["train"][section] = value
    outcome(packed(folder.content()))


@SPOILED
@given(
    _values.map(lambda value: json.dumps(value).encode()) | spoiled(json.dumps(build.coco().splits["train"]).encode())
)
@example(b'{"images": ' + b"[" * 100_000)
@example(b'{"images": [{"id": 1e400}]}')
@example(b'{"images": [{"id": ' + b"9" * 5000 + b"}]}")
def test_any_json_is_imported_or_refused(document: bytes) -> None:
    folder = build.coco()
    folder.files["annotations/instances_train.json"] = document
    outcome(packed(folder.content()))


@SPOILED
@given(spoiled(build.voc_xml("000001.jpg", "cat").encode()) | st.text(max_size=200).map(lambda text: text.encode()))
@example(b"<annotation>" * 50_000)
@example(b'<?xml version="1.0" encoding="utf-7"?><annotation/>')
@example("<annotation><object><name>\ud7ff</name></object></annotation>".encode())
def test_any_xml_is_imported_or_refused(document: bytes) -> None:
    outcome(packed({**build.voc(), "Annotations/000001.xml": document}))


@SPOILED
@given(
    _values.map(lambda value: yaml.safe_dump({"names": value}).encode())
    | spoiled(b"names: [cat, dog]\ntrain: images/train\nval: images/val\n")
)
@example(b"names: " + b"[" * 20_000)
@example(b"names: {0: cat, 1: {2: dog}}")
@example(b"names: {-1: cat, 99999999999: dog}")
@example(b"? [a, b]\n: c\nnames: [x]")
@example(b"names: 2024-99-99")
def test_any_yaml_is_imported_or_refused(document: bytes) -> None:
    outcome(packed({**build.yolo(), "data.yaml": document}))


@SPOILED
@given(spoiled(build.yolo_line(0).encode()) | st.text(max_size=80).map(lambda text: text.encode()))
@example(b"0 .5 .5 .1 .1\n" * 20_000)
@example(b"0 1e309 .5 .1 .1")
@example(b"9" * 5000 + b" .5 .5 .1 .1")
def test_any_label_file_is_imported_or_refused(labels: bytes) -> None:
    outcome(packed({**build.yolo(), "labels/train/1.txt": labels}))
