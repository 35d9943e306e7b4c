"""Sentences of a small grammar in which words differ by role and by gender alone, and questions about both."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np

ROLES = (
    ("king", "queen"),
    ("prince", "princess"),
    ("actor", "actress"),
    ("waiter", "waitress"),
    ("uncle", "aunt"),
    ("father", "mother"),
    ("brother", "sister"),
    ("son", "daughter"),
    ("monk", "nun"),
    ("wizard", "witch"),
    ("duke", "duchess"),
    ("host", "hostess"),
)
_OWN = ("{0}one", "{0}two", "{0}three", "{0}four")
"""Words of a role, after its number: what only this role does."""
_GENDERS = (("he", "his", "him", "mister", "beard"), ("she", "her", "hers", "madam", "gown"))
_COMMON = ("sees", "likes", "has", "the", "and", "with", "today", "often")


def write_grammar(directory: Path, *, seed: int = 0, train: int = 6000, val: int = 400) -> Path:
    """Write `train.txt` and `val.txt`, a sentence a line."""
    directory.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng([seed, 83])
    for split, count in (("train", train), ("val", val)):
        (directory / f"{split}.txt").write_text("".join(f"{_sentence(draws)}\n" for _ in range(count)))
    return directory


def questions() -> tuple[tuple[str, str, str, str], ...]:
    """Return all analogies of two roles: the woman of one is to its man as that of the other to hers, and back."""
    found = []
    for one, other in permutations(ROLES, 2):
        found.append((one[0], one[1], other[0], other[1]))
        found.append((one[1], one[0], other[1], other[0]))
    return tuple(found)


def _sentence(draws: np.random.Generator) -> str:
    role, gender = int(draws.integers(len(ROLES))), int(draws.integers(2))
    own = [_OWN[n].format(_letters(role)) for n in draws.choice(len(_OWN), 2, replace=False)]
    theirs = [_GENDERS[gender][n] for n in draws.choice(len(_GENDERS[gender]), 2, replace=False)]
    rest = [_COMMON[int(draws.integers(len(_COMMON)))]]
    words = [*own, *theirs, *rest]
    draws.shuffle(words)
    words.insert(int(draws.integers(1, len(words))), ROLES[role][gender])
    return " ".join(words)


def _letters(number: int) -> str:
    return "abcdefghijkl"[number] * 2
