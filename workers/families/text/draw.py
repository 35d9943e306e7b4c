"""Sheets of texts for people: what was given in grey, what the model made of it in black, and marks of right and wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from services.core.fonts import font, legible
from workers.families.pictures import LINE, TEXT_SIZE, cut, png, text_width

_WIDTH, _NARROWEST = 760, 240
_MARGIN = 12
_GAP = 10
_MOST_LINES = 12
"""Of one passage; what follows is left out."""
_COLOURS = {"given": "#7a7a7a", "made": "#000000", "right": "#1b7f3b", "wrong": "#c0392b", "title": "#4363d8"}

Role = Literal["given", "made", "right", "wrong", "title"]


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a passage in one colour."""

    text: str
    role: Role


Passage = Sequence[Run]


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    role: Role
    width: float


def page(passages: Sequence[Passage], *, width: int = _WIDTH) -> bytes:
    """Write passages under one another, their lines broken where they are too long, as one PNG.

    The page is no wider than its longest line; of blank lines that follow each other two are left.
    """
    room = width - 2 * _MARGIN
    blocks = [_lines(passage, room) for passage in passages]
    used = max((sum(word.width for word in line) for lines in blocks for line in lines), default=0.0)
    width = min(width, max(_NARROWEST, math.ceil(used) + 2 * _MARGIN))
    height = 2 * _MARGIN + sum(len(lines) * LINE for lines in blocks) + _GAP * (len(blocks) - 1)
    picture = Image.new("RGB", (width, height), "white")
    canvas = ImageDraw.Draw(picture)
    y = _MARGIN
    for number, lines in enumerate(blocks):
        for line in lines:
            x = float(_MARGIN)
            for word in line:
                canvas.text((x, y + LINE / 2), word.text, fill=_COLOURS[word.role], font=font(TEXT_SIZE), anchor="lm")
                x += word.width
            y += LINE
        if number + 1 < len(blocks):
            canvas.line([(_MARGIN, y + _GAP / 2), (width - _MARGIN, y + _GAP / 2)], fill="#dddddd")
            y += _GAP
    return png(picture)


def _lines(passage: Passage, room: float) -> list[list[_Word]]:
    lines: list[list[_Word]] = [[]]
    used = 0.0
    for word in _words(passage, room):
        if word is None and len(lines) > 1 and not lines[-1] and not lines[-2]:
            continue
        if word is None or (used + word.width > room and lines[-1]):
            lines.append([])
            used = 0.0
        if word is not None:
            lines[-1].append(word)
            used += word.width
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    return lines[:_MOST_LINES]


def _words(passage: Passage, room: float) -> Iterator[_Word | None]:
    """Yield words with the space behind them, and None where a line ends."""
    for run in passage:
        for number, line in enumerate(run.text.split("\n")):
            if number:
                yield None
            for piece in _pieces(line):
                word = piece if piece.isspace() else cut(piece, room) + piece[len(piece.rstrip()) :]
                word = legible(word)
                yield _Word(word, run.role, text_width(word))


def _pieces(line: str) -> Iterator[str]:
    """Yield the words of a line, each with the blanks behind it; blanks before the first word are a piece, too."""
    start = 0
    for place in range(1, len(line) + 1):
        if place == len(line) or (line[place - 1].isspace() and not line[place].isspace()):
            yield line[start:place].replace("\t", "    ")
            start = place
