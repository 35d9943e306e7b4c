r"""Texts on their way in: read line by line with the place of whatever is wrong, divided, and written in canonical form.

What the importers of text share. Lines end where `\n`, `\r\n` or `\r` says so and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from services.datasets.canonical import write_header
from services.datasets.limits import MIB
from services.datasets.problem import ProblemKind, Problems
from services.datasets.report import Report, SplitCounts, Tally
from services.datasets.source import SPLITS, Reading, SourceTexts
from services.datasets.split_rule import SplitRule

_NAMES = {"text": "text-{}.txt", "parallel_text": "pairs-{}.tsv"}
_FEWEST_LINES = 10
"""Fewer than these are a text of long lines, not a list of samples."""
_TELLING_CHARACTERS = 40
"""Shorter lines come again in any running text and tell nothing about its splits."""

Splits = dict[str, tuple[str, ...]]


def read_file(reading: Reading, name: str) -> list[str] | None:
    """Return the lines of a file without their ends, or None after naming the problem."""
    path, problems = reading.tree.path(name), reading.problems
    if path.stat().st_size > reading.limits.max_text_bytes:
        text = f"larger than {reading.limits.max_text_bytes // MIB} MiB; split the dataset"
        problems.add(ProblemKind.TEXT, name, text)
        return None
    body = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = body.count(b"\n", 0, err.start) + 1
        remedy = "save the file as UTF-8, such as by `iconv -f latin1 -t utf-8` from Latin-1"
        problems.add(ProblemKind.TEXT, f"{name}: line {line}", f"{_shown(body, err)}; {remedy}")
        return None
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        problems.add(ProblemKind.TEXT, f"{name}: line {line}", "holds a zero character, so it is no text; remove it")
        return None
    if not text.strip():
        problems.add(ProblemKind.TEXT, name, "holds no text; fill it, or leave it out")
        return None
    return text.removesuffix("\n").split("\n")


def _shown(body: bytes, err: UnicodeDecodeError) -> str:
    return f"byte 0x{body[err.start]:02x} is not UTF-8"


def is_too_large(reading: Reading, names: Iterable[str]) -> bool:
    """Tell whether the files together are more than an import takes, and say so."""
    limit = reading.limits.max_text_bytes
    if sum(reading.tree.path(name).stat().st_size for name in names) <= limit:
        return False
    reading.problems.add(ProblemKind.TEXT, "dataset", f"the texts hold more than {limit // MIB} MiB; split the dataset")
    return True


def write_texts(source: SourceTexts, out: Path, problems: Problems, rule: SplitRule) -> Report:
    """Divide the texts where no split is stated, and write their canonical form.

    Raises:
        DatasetInvalid: with everything found wrong.
    """
    problems.raise_if_any()
    splits, notes = _divided(source, problems, rule)
    problems.raise_if_any()
    files, counts = {}, {}
    for split in (split for split in SPLITS if split in splits):
        lines = splits[split]
        files[split] = _write(out / _NAMES[source.family].format(split), "\n".join(lines) + "\n")
        counts[split] = _counts(source, lines)
    header: dict[str, Any] = {
        "family": source.family,
        "classes": [],
        "files": files,
        "splits": {split: count.units() for split, count in counts.items()},
        "source_format": source.format,
    }
    write_header(header, out)
    duplicates, leaks = _repeats(source, splits)
    if leaks.count:
        notes.append(f"{leaks.count} held-out lines are in train, too: evaluation will look better than it is.")
    return Report(
        format=source.format,
        family=source.family,
        splits=counts,
        duplicate_lines=duplicates.finding(),
        split_leakage=leaks.finding(),
        ignored=dict(source.ignored),
        notes=notes,
    )


def _write(path: Path, text: str) -> dict[str, Any]:
    body = text.encode()
    path.write_bytes(body)
    return {"name": path.name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def _counts(source: SourceTexts, lines: tuple[str, ...]) -> SplitCounts:
    if source.family == "parallel_text":
        return SplitCounts(pairs=len(lines))
    filled = [line for line in lines if line.strip()]
    return SplitCounts(lines=len(filled), characters=sum(map(len, lines)) + len(lines) - 1)


def _divided(source: SourceTexts, problems: Problems, rule: SplitRule) -> tuple[Splits, list[str]]:
    splits = {split: tuple(lines) for split, lines in source.lines.items()}
    if "" in splits and len(splits) > 1:
        text = "some files name a split and others do not; name every file, or its folder, train, val or test"
        problems.add(ProblemKind.SPLIT, "dataset", text)
        return {}, []
    if "train" in splits and "val" in splits:
        return splits, []
    whole = splits.pop("", None) or splits.pop("train", None)
    if whole is None:
        problems.add(ProblemKind.SPLIT, "dataset", "has no train split; add one, or name no split and one is made")
        return {}, []
    found = _tail(whole, rule) if _is_running(source, whole) else _drawn(source, whole, rule)
    if found is None:
        problems.add(ProblemKind.SPLIT, "dataset", "is too short to set a part aside for evaluation; add text")
        return {}, []
    train, val, note = found
    return splits | {"train": train, "val": val}, [f"The dataset has no val split: {note}."]


def _is_running(source: SourceTexts, lines: tuple[str, ...]) -> bool:
    """Tell whether each line goes on from the one before: there are paragraphs, or hardly any lines."""
    if source.family == "parallel_text":
        return False
    return len(lines) < _FEWEST_LINES or any(not line.strip() for line in lines)


def _tail(lines: tuple[str, ...], rule: SplitRule) -> tuple[tuple[str, ...], tuple[str, ...], str] | None:
    """Set the end of a running text aside, from the start of a line, or of a word where lines are too long."""
    text = "\n".join(lines)
    place = round(len(text) * (1 - rule.val_fraction))
    latest = place + (len(text) - place) // 2
    ends = (end for mark in ("\n", " ") if (end := text.find(mark, place, latest)) >= 0)
    place = next(ends, place - 1) + 1
    train, val = text[:place].removesuffix("\n"), text[place:].strip("\n")
    if not train.strip() or not val.strip():
        return None
    note = f"its last {len(val)} of {len(text)} characters were set aside"
    return tuple(train.split("\n")), tuple(val.split("\n")), note


def _drawn(
    source: SourceTexts, lines: tuple[str, ...], rule: SplitRule
) -> tuple[tuple[str, ...], tuple[str, ...], str] | None:
    """Set a share of the lines aside; what is read alike stays together."""
    held = rule.draw({_key(source, line) for line in lines})
    if not held:
        return None
    train = tuple(line for line in lines if _key(source, line) not in held)
    val = tuple(line for line in lines if _key(source, line) in held)
    what = "pairs" if source.family == "parallel_text" else "lines"
    return train, val, f"{len(val)} of {len(lines)} {what} were set aside"


def _key(source: SourceTexts, line: str) -> str:
    """Return what must not be in two splits: a line, or the source of a pair."""
    return line.partition("\t")[0] if source.family == "parallel_text" else line


def _repeats(source: SourceTexts, splits: Mapping[str, tuple[str, ...]]) -> tuple[Tally, Tally]:
    """Find lines that come again in their split, and held-out ones that are in train."""
    least = _TELLING_CHARACTERS if _is_running(source, splits["train"]) else 1
    duplicates, leaks = Tally(), Tally()
    known = {_key(source, line) for line in splits["train"]}
    for split, lines in splits.items():
        seen: set[str] = set()
        for number, line in enumerate(lines, start=1):
            if len(line.strip()) < least:
                continue
            if line in seen:
                duplicates.add(f"{split}: line {number}")
            elif split != "train" and _key(source, line) in known:
                leaks.add(f"{split}: line {number}")
            seen.add(line)
    return duplicates, leaks


def joined(parts: Mapping[str, list[list[str]]]) -> Splits:
    """Return the lines of each split, its files one after another."""
    return {split: tuple(line for lines in files for line in lines) for split, files in parts.items()}
