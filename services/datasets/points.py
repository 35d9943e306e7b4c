"""Tables of numbers, a point a row: `train.csv` and `val.csv`, or the same as `.npy`.

A CSV may name its columns in the first line. What is neither finite nor a number is refused.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from services.datasets.canonical import write_header
from services.datasets.limits import GIB, ImportLimits
from services.datasets.problem import ProblemKind, Problems
from services.datasets.report import Report, SplitCounts
from services.datasets.source import SPLITS, Reading, SourcePoints
from services.datasets.split_rule import SplitRule
from services.datasets.tree import Tree, split_of_path

FORMAT = "points"
_SUFFIXES = (".csv", ".npy")
_MAX_BYTES = 2 * GIB
_MAX_COLUMNS = 4096

Table = npt.NDArray[np.float32]


class _TableInvalid(ValueError):
    """A table that cannot be used; the message says why and what to do."""


def is_like(tree: Tree) -> bool:
    """Tell whether the tree holds tables and no images."""
    return not tree.images and bool(tree.with_suffix(*_SUFFIXES))


def read(reading: Reading) -> SourcePoints:
    """Read every table of the tree; what is wrong goes to the problems."""
    names = reading.tree.with_suffix(*_SUFFIXES)
    problems = reading.problems
    if not names:
        problems.add(ProblemKind.LAYOUT, "dataset", "no .csv or .npy file; add train.csv and val.csv")
    tables: dict[str, Table] = {}
    columns: tuple[str, ...] = ()
    for name in names:
        try:
            table, header = _read_table(reading.tree.path(name), reading.limits)
        except _TableInvalid as err:
            problems.add(ProblemKind.TABLE, name, str(err))
            continue
        columns = columns or header
        width = next(iter(tables.values())).shape[1] if tables else table.shape[1]
        if table.shape[1] != width:
            text = f"has {table.shape[1]} columns, other tables have {width}; give all the same"
            problems.add(ProblemKind.TABLE, name, text)
            continue
        split = split_of_path(name) or ""
        tables[split] = np.concatenate([tables[split], table]) if split in tables else table
    if tables and not columns:
        columns = tuple(f"x{n}" for n in range(next(iter(tables.values())).shape[1]))
    return SourcePoints(FORMAT, columns, tables)


def write_points(source: SourcePoints, out: Path, problems: Problems, rule: SplitRule) -> Report:
    """Divide the points where no split is stated, and write their canonical form.

    Raises:
        DatasetInvalid: with everything found wrong.
    """
    problems.raise_if_any()
    tables, notes = _divided(source, problems, rule)
    problems.raise_if_any()
    for split, table in tables.items():
        np.save(out / f"points-{split}.npy", table, allow_pickle=False)
    counts = {split: SplitCounts(points=len(tables[split])) for split in SPLITS if split in tables}
    header = {
        "family": "points",
        "classes": [],
        "columns": list(source.columns),
        "splits": {split: count.units() for split, count in counts.items()},
        "source_format": FORMAT,
    }
    write_header(header, out)
    return Report(format=FORMAT, family="points", splits=counts, ignored=dict(source.ignored), notes=notes)


def _divided(source: SourcePoints, problems: Problems, rule: SplitRule) -> tuple[dict[str, Table], list[str]]:
    tables = dict(source.tables)
    if "" in tables and len(tables) > 1:
        text = "some tables name a split and others do not; name every file train, val or test"
        problems.add(ProblemKind.SPLIT, "dataset", text)
        return {}, []
    whole = tables.pop("", None)
    if whole is None and "val" in tables and "train" in tables:
        return tables, []
    if whole is None:
        whole = tables.pop("train", None)
    if whole is None or len(whole) < 2:
        problems.add(ProblemKind.SPLIT, "dataset", "needs a train split of at least two points; add points")
        return {}, []
    count = min(len(whole) - 1, max(1, round(len(whole) * rule.val_fraction)))
    order = np.random.default_rng([rule.seed & 0xFFFFFFFF, len(whole)]).permutation(len(whole))
    tables |= {"train": whole[np.sort(order[count:])], "val": whole[np.sort(order[:count])]}
    return tables, [f"The dataset has no val split: {count} of {len(whole)} points were set aside."]


def _read_table(path: Path, limits: ImportLimits) -> tuple[Table, tuple[str, ...]]:
    """Return the numbers (N, D) and the names of the columns, where there are any."""
    if path.stat().st_size > _MAX_BYTES:
        raise _TableInvalid(f"larger than {_MAX_BYTES // GIB} GiB; split the dataset")
    header: tuple[str, ...] = ()
    if path.suffix.lower() == ".npy":
        table = _read_npy(path)
    else:
        table, header = _read_csv(path, limits)
    if table.ndim != 2 or 0 in table.shape or table.shape[1] > _MAX_COLUMNS:
        raise _TableInvalid(f"has the shape {table.shape}; write a table with a point a row")
    if table.size > limits.max_points:
        raise _TableInvalid(f"holds {table.size} numbers, the limit is {limits.max_points}; split the dataset")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        narrow = table.astype(np.float32)
    if not np.isfinite(narrow).all():
        row = int(np.flatnonzero(~np.isfinite(narrow).all(axis=1))[0])
        raise _TableInvalid(f"row {row + 1} holds a value that is no finite 32-bit number; correct or remove it")
    return narrow, header


def _read_npy(path: Path) -> npt.NDArray[np.floating | np.integer]:
    try:
        # Mapped, not read: a header may announce more than there is.
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as err:
        raise _TableInvalid(f"not a .npy file of plain numbers ({err}); save it with numpy.save") from err
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "fiu":
        raise _TableInvalid("does not hold real numbers; save a float32 table")
    return table


def _read_csv(path: Path, limits: ImportLimits) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = _rows(csv.reader(lines))
            _, first = next(rows, (0, []))
            header = () if all(_is_number(word) for word in first) else tuple(word.strip() for word in first)
            numbers = array("d", () if header else map(float, first))
            for line, words in rows:
                numbers.extend(_numbers(line, words, len(first)))
                if len(numbers) > limits.max_points:
                    raise _TableInvalid(f"holds more than {limits.max_points} numbers; split the dataset")
    except (UnicodeDecodeError, csv.Error) as err:
        raise _TableInvalid(f"not a CSV file in UTF-8 ({err}); export it again") from err
    if not numbers:
        raise _TableInvalid("holds no row of numbers; write one point a line")
    return np.frombuffer(numbers, dtype=np.float64).reshape(-1, len(first)), header


def _rows(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    for line, words in enumerate(reader, start=1):
        if words:
            yield line, words


def _numbers(line: int, words: list[str], width: int) -> list[float]:
    if len(words) != width:
        raise _TableInvalid(f"line {line} has {len(words)} values, the first line has {width}; complete it")
    try:
        return [float(word) for word in words]
    except ValueError:
        bad = next(word for word in words if not _is_number(word))
        raise _TableInvalid(f"line {line} holds {bad!r}, which is no number; correct or remove it") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
