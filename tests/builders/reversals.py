"""Rows of letters and the same from behind: the smallest translation that needs order."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np


def write_reversals(
    directory: Path,
    *,
    seed: int = 0,
    train: int = 20_000,
    val: int = 500,
    least: int = 4,
    most: int = 8,
    letters: int = 16,
) -> Path:
    """Write `train.tsv` and `val.tsv`: rows of `least` to `most` letters, words of their own, each row once in all."""
    directory.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng([seed, 71])
    rows: dict[str, None] = {}
    while len(rows) < train + val:
        length = int(draws.integers(least, most + 1))
        rows[" ".join(string.ascii_lowercase[n] for n in draws.integers(0, letters, length))] = None
    ordered = list(rows)
    for split, part in (("val", ordered[:val]), ("train", ordered[val:])):
        (directory / f"{split}.tsv").write_text("".join(f"{row}\t{row[::-1]}\n" for row in part))
    return directory
