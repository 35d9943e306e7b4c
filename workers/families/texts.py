"""Reads a dataset of texts in canonical form; each file is checked against the digest of what was imported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from services.core.errors import DatasetInvalid
from workers.families.records import HEADER, damaged, read_meta

Pair = tuple[str, str]


def read_text(directory: Path, split: str) -> str:
    """Return the text of a split; its lines end with a newline each.

    Raises:
        DatasetInvalid: not a dataset of text, damaged, or without this split.
    """
    return _read(directory, split, family="text")


def read_pairs(directory: Path, split: str) -> tuple[Pair, ...]:
    """Return (source, target) of every line of a split.

    Raises:
        DatasetInvalid: not a dataset of parallel text, damaged, or without this split.
    """
    lines = _read(directory, split, family="parallel_text").removesuffix("\n").split("\n")
    return tuple((source, target) for source, _, target in (line.partition("\t") for line in lines))


def _read(directory: Path, split: str, *, family: str) -> str:
    if (found := read_meta(directory).family) != family:
        raise DatasetInvalid(f"this is a {found} dataset; this recipe reads {family}")
    try:
        files: Mapping[str, Any] = json.loads((directory / HEADER).read_text(encoding="utf-8"))["files"]
        stated = files.get(split)
        name, digest = ("", "") if stated is None else (str(stated["name"]), str(stated["sha256"]))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as err:
        raise damaged(HEADER, err) from err
    if stated is None:
        raise DatasetInvalid(f"the dataset has no text of the split '{split}'; import one that has")
    if PurePosixPath(name).name != name:
        raise DatasetInvalid(f"{HEADER} is damaged: {name!r:.50} is no name of a file; import the dataset again")
    try:
        body = (directory / name).read_bytes()
    except (OSError, ValueError) as err:
        raise damaged(name, err) from err
    if hashlib.sha256(body).hexdigest() != digest:
        raise DatasetInvalid(f"{name} is damaged: it is not what was imported; import the dataset again")
    return body.decode()
