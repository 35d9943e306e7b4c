"""Run lengths in tables, as Severstal's steel defects were published: `train.csv` beside `train_images/`.

A row is the region of one class in one image: `ImageId,ClassId,EncodedPixels`, or `ImageId_ClassId,EncodedPixels` as
the first edition had it. Runs are `start length start length ...`, from 1 on, down the columns. Classes count from 1; 0 is
where no region is. An image of a table's split without a row shows none. `sample_submission.csv` is no truth.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from services.datasets.class_list import find_class_list, read_class_list
from services.datasets.problem import ProblemKind, Problems, listing
from services.datasets.raster import Patch, fill_runs
from services.datasets.source import IndexMask, MaskUnusable, Reading, SourceDataset, SourceImage
from services.datasets.text_file import read_text
from services.datasets.tree import Tree, split_of_path

FORMAT = "rle_csv"
_IMAGE, _CLASS, _RUNS, _JOINED = "ImageId", "ClassId", "EncodedPixels", "ImageId_ClassId"
_NO_TRUTH = "sample_submission.csv"
_MAX_NUMBERS = 2_000_000
_MAX_HEADER_BYTES = 512
_NUMBERS = re.compile(r"[0-9]{1,12}(?: +[0-9]{1,12})*", re.ASCII)
_CLASS_ID = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)

_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Region:
    """The pixels of one class in one image; `runs` is text as the table has it, empty where there are none."""

    where: str
    class_id: int
    runs: str

    def patch(self, width: int, height: int) -> Patch:
        starts, lengths = _pairs(self.runs)
        ends = starts + lengths
        if ends.size and ends[-1] > width * height:
            text = f"its runs end at pixel {ends[-1]}, the image has {width}x{height} = {width * height}"
            raise MaskUnusable(f"{text}; export the table for this file, counted down the columns from 1")
        stops = np.concatenate([[0], ends])
        counts = np.stack([starts - stops[:-1], lengths], axis=1).reshape(-1)
        return fill_runs([*counts.tolist(), width * height - int(stops[-1])], width, height)


@dataclass(frozen=True, slots=True)
class _Regions:
    """All regions of one image as its mask; `labels` gives the value of each class."""

    where: str
    regions: Sequence[_Region]
    labels: Mapping[int, int]

    def indices(self, width: int, height: int) -> IndexMask:
        """Paint the regions; everything wrong with them is said at once. See SourceMask."""
        mask = np.zeros((height, width), dtype=np.uint8)
        faults = []
        for region in self.regions:
            try:
                patch = region.patch(width, height)
            except MaskUnusable as err:
                faults.append(f"{region.where}: {err}")
                continue
            if shared := int(np.count_nonzero(mask[patch.shape])):
                text = f"{shared} of its pixels belong to another class already; a pixel has one class"
                faults.append(f"{region.where}: {text}")
            patch.paint(mask, self.labels[region.class_id])
        if faults:
            raise MaskUnusable("; ".join(faults))
        return mask


@dataclass(slots=True)
class _Tables:
    """What the tables say, by the name of the image: its regions by class, and the table that lists it first."""

    regions: dict[str, dict[int, _Region]] = field(default_factory=lambda: defaultdict(dict))
    table_of: dict[str, str] = field(default_factory=dict)

    def add(self, image: str, table: str, region: _Region, problems: Problems) -> None:
        first = self.table_of.setdefault(image, table)
        if split_of_path(first) != split_of_path(table):
            text = f"{image} is in {first} too, which is of another split; keep it in one of them"
            problems.add(ProblemKind.SPLIT, region.where, text)
            return
        before = self.regions[image].setdefault(region.class_id, region)
        if before is not region:
            text = f"repeats image and class of {before.where}; keep one row for both, with all runs"
            problems.add(ProblemKind.ANNOTATION, region.where, text)


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds images and a table with a column of run lengths."""
    return bool(tree.images) and any(_has_runs(tree.path(name)) for name in _table_names(tree))


def read(reading: Reading) -> SourceDataset:
    """Give every image its regions; what is wrong goes to the problems."""
    tree, problems = reading.tree, reading.problems
    names = [name for name in _table_names(tree) if _has_runs(tree.path(name))]
    if not names:
        text = f"no table with the columns {_IMAGE}, {_CLASS} and {_RUNS}; add train.csv"
        problems.add(ProblemKind.LAYOUT, "dataset", text)
    classes = _stated_classes(reading)
    most = reading.limits.max_mask_classes - 1
    tables = _parsed(reading, names, min(most, len(classes) - 1) if classes else most)
    found = sorted({class_id for regions in tables.regions.values() for class_id in regions})
    labels = {class_id: class_id if classes else place for place, class_id in enumerate(found, start=1)}
    images = list(_images(tree, tables, labels, {split_of_path(name) or "" for name in names}))
    ignored = {"images of no table's split": len(tree.images) - len(images)}
    shown = classes or ("background", *map(str, found))
    return SourceDataset(FORMAT, shown, tuple(images), ignored, family="segmentation")


def _parsed(reading: Reading, names: Sequence[str], most: int) -> _Tables:
    """Return what the tables say; `most` is the highest class there may be."""
    problems, tables = reading.problems, _Tables()
    by_name: dict[str, list[str]] = defaultdict(list)
    for name in reading.tree.images:
        by_name[PurePosixPath(name).name].append(name)
    for table in names:
        for where, image_id, class_id, runs in _rows(reading, table):
            image = _image(image_id, table, by_name, where, problems)
            region = _region(where, class_id, runs, most, problems)
            if image is not None and region is not None:
                tables.add(image, table, region, problems)
    return tables


def _table_names(tree: Tree) -> list[str]:
    return [name for name in tree.with_suffix(".csv") if PurePosixPath(name).name != _NO_TRUTH]


def _has_runs(path: Path) -> bool:
    with path.open("rb") as file:
        return _RUNS.encode() in file.readline(_MAX_HEADER_BYTES)


def _stated_classes(reading: Reading) -> tuple[str, ...]:
    """Return the names of a list of classes, the first for what no region covers; nothing where there is no list."""
    name = find_class_list(reading.tree)
    stated = None if name is None else read_class_list(reading.tree, name, reading.problems)
    return () if stated is None else stated.names


def _rows(reading: Reading, table: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield place, image, class and runs of every row that has them all."""
    problems = reading.problems
    text = read_text(reading.tree, table, problems, max_bytes=reading.limits.max_annotation_bytes)
    lines = [] if text is None else text.splitlines()
    header = _cells(lines[0]) if lines else []
    is_joined = {_JOINED, _RUNS} <= set(header)
    if lines and not is_joined and not {_IMAGE, _CLASS, _RUNS} <= set(header):
        wanted = f"needs the columns {_IMAGE}, {_CLASS} and {_RUNS}"
        problems.add(ProblemKind.TABLE, table, f"{wanted}, but its first line is {listing(header)}; correct it")
        return
    for number, line in enumerate(lines[1:], start=2):
        cells = _cells(line)
        where = f"{table}: line {number}"
        if len(cells) != len(header):
            if line.strip():
                text = f"has {len(cells)} values, the first line has {len(header)}; correct the row"
                problems.add(ProblemKind.TABLE, where, text)
            continue
        row = dict(zip(header, cells, strict=True))
        image, _, class_id = row[_JOINED].rpartition("_") if is_joined else (row[_IMAGE], "", row[_CLASS])
        yield where, image, class_id, row[_RUNS]


def _cells(line: str) -> list[str]:
    # Names of images and runs hold neither commas nor quotes, and a reader of quotes has a limit for long cells.
    return [cell.strip().strip('"') for cell in line.split(",")]


def _image(
    image_id: str, table: str, by_name: Mapping[str, Sequence[str]], where: str, problems: Problems
) -> str | None:
    """Return the image of the tree that a row means: in a folder of its table's split, or of none."""
    split = split_of_path(table)
    same = by_name.get(PurePosixPath(image_id).name, ())
    fitting = [name for name in same if f"/{name}".endswith(f"/{image_id}")]
    if split is not None:
        fitting = [name for name in fitting if split_of_path(PurePosixPath(name).parent.as_posix()) in (split, None)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        text = f"{image_id!r} may be {listing(fitting)}; write the folder before the name"
    else:
        text = f"no image {image_id!r}{f' of split {split}' if split else ''} in the dataset; add it or remove the row"
    problems.add(ProblemKind.MISSING_IMAGE, where, text)
    return None


def _region(where: str, class_id: str, runs: str, most: int, problems: Problems) -> _Region | None:
    """Return a row's region; its runs are sound but for the size of the image, which is not known yet."""
    is_known = _CLASS_ID.fullmatch(class_id) is not None and int(class_id) <= most
    if not is_known:
        problems.add(ProblemKind.CLASS, where, f"class {class_id!r} is none of 1 to {most}; correct it")
    try:
        _pairs(runs)
    except MaskUnusable as err:
        problems.add(ProblemKind.MASK, where, str(err))
        return None
    return _Region(where, int(class_id), runs) if is_known else None


def _pairs(runs: str) -> tuple[_Numbers, _Numbers]:
    """Return starts from 0 on, growing, and lengths of runs.

    Raises:
        MaskUnusable: they are no pairs of numbers from 1 on, or overlap.
    """
    # Counted first: a row of a few hundred megabytes would become gigabytes of words.
    if runs.count(" ") >= _MAX_NUMBERS:
        raise MaskUnusable(f"has more than {_MAX_NUMBERS} numbers; export the masks as pictures")
    if runs and not _NUMBERS.fullmatch(runs):
        raise MaskUnusable("its runs are not whole numbers between blanks; write `start length start length`")
    words = runs.split()
    if len(words) % 2:
        raise MaskUnusable(f"has {len(words)} numbers, which are no pairs; write `start length start length`")
    numbers = np.fromiter(map(int, words), dtype=np.int64, count=len(words)).reshape(-1, 2)
    if (numbers < 1).any():
        raise MaskUnusable("has a start or a length of 0; pixels count from 1, and a run has one at least")
    ordered = numbers[np.argsort(numbers[:, 0], kind="stable")]
    starts, lengths = ordered[:, 0] - 1, ordered[:, 1]
    overlaps = np.flatnonzero(starts[1:] < (starts + lengths)[:-1])
    if overlaps.size:
        place = int(starts[overlaps[0] + 1]) + 1
        raise MaskUnusable(f"two of its runs overlap at pixel {place}; every pixel belongs to one run")
    return starts, lengths


def _images(tree: Tree, tables: _Tables, labels: Mapping[int, int], splits: set[str]) -> Iterator[SourceImage]:
    """Yield the listed images, and those of the tables' splits that no row is about: they show nothing."""
    for name in tree.images:
        own = split_of_path(PurePosixPath(name).parent.as_posix()) or ""
        if name in tables.table_of:
            split = own or split_of_path(tables.table_of[name]) or ""
        elif own and splits & {own, ""}:
            split = own
        elif not own and len(splits) == 1:
            (split,) = splits
        else:
            continue
        regions = tuple(tables.regions.get(name, {}).values())
        mask = _Regions(regions[0].where if regions else name, regions, labels)
        yield SourceImage(name, tree.path(name), name, split, mask=mask)
