"""Pascal VOC xml: 1-based inclusive pixel boxes, `difficult` kept, splits from ImageSets.

Where no ImageSets list names an image, the folder it lies in may; images without xml are left aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from services.datasets.limits import MIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.source import SPLITS, Reading, SourceBox, SourceDataset, SourceImage
from services.datasets.tree import IMAGE_SUFFIXES, Tree, split_of_path

FORMAT = "voc"
_MAX_XML_BYTES = 16 * MIB
_LISTS = frozenset({"Main", "ImageSets"})
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class _Object:
    """One `object` element, its class still a name."""

    where: str
    name: str
    corners: tuple[float, float, float, float]
    is_difficult: bool


@dataclass(frozen=True, slots=True)
class _Page:
    """One parsed annotation file."""

    name: str
    image: str
    size: tuple[int | None, int | None]
    objects: tuple[_Object, ...]


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds annotations in xml."""
    return bool(tree.images and tree.with_suffix(".xml"))


def read(reading: Reading) -> SourceDataset:
    """Parse every xml of the tree; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    pages = [page for name in tree.with_suffix(".xml") if (page := _parse(tree, name, problems)) is not None]
    classes = sorted({thing.name for page in pages for thing in page.objects})
    index = {name: n for n, name in enumerate(classes)}
    splits = image_sets(tree, problems)
    images = []
    for page in pages:
        stem = PurePosixPath(page.name).stem
        for split in splits.get(stem, [split_of_path(page.name) or split_of_path(page.image) or ""]):
            boxes = tuple(_box(thing, index) for thing in page.objects)
            width, height = page.size
            images.append(
                SourceImage(page.name, tree.path(page.image), page.image, split, boxes, width=width, height=height)
            )
    used = {page.image for page in pages}
    unlisted = [image for image in images if splits and not image.split]
    kept = tuple(image for image in images if not (splits and not image.split))
    ignored = {
        "images without an xml file": sum(1 for name in tree.images if name not in used),
        "images no ImageSets list names": len(unlisted),
    }
    return SourceDataset(FORMAT, tuple(classes), kept, ignored)


def _parse(tree: Tree, name: str, problems: Problems) -> _Page | None:
    path = tree.path(name)
    if path.stat().st_size > _MAX_XML_BYTES:
        problems.add(ProblemKind.BROKEN_FILE, name, f"larger than {_MAX_XML_BYTES // MIB} MiB; one image needs less")
        return None
    try:
        root = SafeTree.fromstring(path.read_bytes(), forbid_dtd=True)
    except ParseError as err:
        line, column = err.position
        problems.add(ProblemKind.BROKEN_FILE, name, f"not XML at line {line}, column {column}; export it again")
        return None
    except (DefusedXmlException, ValueError, LookupError) as err:
        text = f"refused ({type(err).__name__}): entities and document types are not allowed; remove them"
        problems.add(ProblemKind.BROKEN_FILE, name, text)
        return None
    if root.tag != "annotation":
        problems.add(ProblemKind.BROKEN_FILE, name, f"its root is <{root.tag}>, not <annotation>; export it as VOC")
        return None
    image = _find_image(tree, name, root)
    if image is None:
        shown = _text(root, "filename") or PurePosixPath(name).stem
        problems.add(ProblemKind.MISSING_IMAGE, f"{name}: filename", f"no image {shown!r} in the dataset; add it")
        return None
    size = (_size(root, "size/width"), _size(root, "size/height"))
    return _Page(name, image, size, tuple(_objects(root, name, problems)))


def _find_image(tree: Tree, name: str, root: Element) -> str | None:
    """Find the image by the stated file name, else by the xml's own stem (VOC ties both)."""
    path = PurePosixPath(name)
    siblings = [path.parent]
    if path.parent.name.lower() in {"annotations", "labels", "xml", "xmls"}:
        siblings += [path.parent.with_name(folder) for folder in ("JPEGImages", "images", "Images")]
    nested = [
        PurePosixPath(*("images" if part.lower() in {"annotations", "labels"} else part for part in path.parent.parts))
    ]
    folders = tuple(folder.as_posix() for folder in [*siblings, *nested, PurePosixPath("images"), PurePosixPath()])
    stated = _text(root, "filename")
    names = [stated] if stated else []
    names += [path.stem + suffix for suffix in sorted(IMAGE_SUFFIXES)]
    names += [path.stem + suffix.upper() for suffix in sorted(IMAGE_SUFFIXES)]
    return next((found for candidate in names if (found := tree.find(candidate, folders)) is not None), None)


def _objects(root: Element, name: str, problems: Problems) -> Iterator[_Object]:
    for n, element in enumerate(root.iterfind("object")):
        where = f"{name}: object[{n}]"
        label = _text(element, "name")
        if not label:
            problems.add(ProblemKind.CLASS, f"{where}/name", "an object without a class name; name it or remove it")
            continue
        try:
            x1, y1, x2, y2 = (float(_text(element, f"bndbox/{corner}")) for corner in _CORNERS)
        except ValueError:
            problems.add(ProblemKind.BOX, f"{where}/bndbox", f"needs the four numbers {', '.join(_CORNERS)}")
            continue
        is_difficult = _text(element, "difficult") == "1"
        yield _Object(f"{where}/bndbox", label, (x1, y1, x2, y2), is_difficult)


def _box(thing: _Object, index: dict[str, int]) -> SourceBox:
    """Convert 1-based inclusive corners: pixel n covers n-1..n, so only the first corner moves."""
    x1, y1, x2, y2 = thing.corners
    return SourceBox(
        where=thing.where,
        label=index[thing.name],
        x1=x1 - 1,
        y1=y1 - 1,
        x2=x2,
        y2=y2,
        is_difficult=thing.is_difficult,
    )


def image_sets(tree: Tree, problems: Problems, *, folders: frozenset[str] = _LISTS) -> dict[str, list[str]]:
    """Return the splits of each image stem, from `ImageSets/**/{train,val,test}.txt`.

    Lists such as `aeroplane_train.txt` repeat the same images by class, and `trainval.txt` both splits;
    neither is read.
    """
    splits: dict[str, list[str]] = {}
    for name in tree.with_suffix(".txt"):
        path = PurePosixPath(name)
        if "ImageSets" not in path.parts or path.stem not in SPLITS or path.parent.name not in folders:
            continue
        try:
            text = tree.path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            problems.add(ProblemKind.BROKEN_FILE, name, "not UTF-8 text; write one image name a line")
            continue
        for line in text.splitlines():
            if words := line.split():
                splits.setdefault(words[0], [])
                if path.stem not in splits[words[0]]:
                    splits[words[0]].append(path.stem)
    return splits


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _size(root: Element, path: str) -> int | None:
    text = _text(root, path)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
