"""Sheets of samples: every picture of an answer under what the answer says of it, small ones enlarged. Pillow only."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from services.client.draw import enlargement
from services.client.pictures import NoPicture, main_pictures
from workers.families.pictures import TEXT_SIZE, captioned, lay_out, line_height, png, text_width

_CELL = 96
"""Pixels of a sample's longer side in the picture; smaller ones are enlarged."""
_PAGE = 1600
"""Pixels of a side that enlarged samples stay within."""
_WIDEST_CAPTION = 160
"""Pixels, of letters of the smallest size."""
_SIDE_OF_LETTERS = 28
"""How many times the size of its caption's letters a large sample is: they are to be read where all of it is seen."""
_MOST_ABREAST = 3
_GAP = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and what is said of it."""

    picture: Image.Image
    caption: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a sheet is laid out: cells of one width in pixels, so many abreast, the size of letters, and that of the page."""

    zoom: int
    width: int
    letters: int
    columns: int
    size: tuple[int, int]


def draw_answer(result: Mapping[str, Any]) -> bytes:
    """Return the picture that shows most of an answer: a single one, enlarged if it is small, or a sheet of all it lists.

    A mask stays as it came: its pixels are classes, which belong to those of the image.

    Raises:
        NoPicture: it has none.
    """
    found = main_pictures(result)
    name, contents = next(iter(found.items()))
    if len(found) == 1 and not isinstance(result[name], list):
        return contents[0] if name == "mask" else _enlarged(contents[0])
    return _sheet(sample_rows(result))


def draw_beside(source: Path, result: Mapping[str, Any]) -> bytes:
    """Return the picture that was sent beside every picture of the answer to it, in the size of these.

    Raises:
        NoPicture: the answer has none.
    """
    answers = [sample for row in sample_rows(result) for sample in row]
    with Image.open(source) as image:
        sent = ImageOps.exif_transpose(image).convert("RGB").resize(answers[0].picture.size, Image.Resampling.LANCZOS)
    named = [Sample(sample.picture, sample.caption or "answer") for sample in answers]
    return _sheet([[Sample(sent, "sent"), *named]])


def sample_rows(result: Mapping[str, Any]) -> list[list[Sample]]:
    """Return the samples of an answer in the rows in which they are best compared.

    Single pictures are one row. A walk is one row, a direction or a mix has one for each latent it starts from, and what was changed stands below
    what it was. Others are about as many abreast as below one another.
    """
    found = main_pictures(result)
    if all(len(contents) == 1 and not isinstance(result[name], list) for name, contents in found.items()):
        return [[Sample(_opened(content), name) for name, (content,) in found.items()]]
    rows: list[list[Sample]] = []
    for name, contents in found.items():
        told, columns = _captions(result, len(contents))
        if len(found) > 1:
            told = [_joined(name, caption) for caption in told]
        samples = [Sample(_opened(content), caption) for content, caption in zip(contents, told, strict=True)]
        if columns is None:
            columns = math.ceil(math.sqrt(len(samples))) if len(found) == 1 else len(samples)
        # Many short rows stand beside one another: the page would be a strip.
        columns *= max(1, math.isqrt(len(samples)) // columns)
        rows += [samples[start : start + columns] for start in range(0, len(samples), columns)]
    return rows


def _captions(result: Mapping[str, Any], count: int) -> tuple[list[str], int | None]:
    """Return what an answer says of each of so many pictures, and how many of them make a row, where that is known."""
    told, columns = _places(result, count)
    labels = result.get("labels")
    if isinstance(labels, list) and len(labels) == count and all(isinstance(label, str) for label in labels):
        # At the end, where a long name may be cut.
        told = [_joined(caption, label) for caption, label in zip(told, labels, strict=True)]
    return told, columns


def _places(result: Mapping[str, Any], count: int) -> tuple[list[str], int | None]:
    alphas, fine = _numbers(result.get("alphas")), _count_fine(result, count)
    if alphas and count % len(alphas) == 0:
        bases = _latents(result, count // len(alphas))
        return [_joined(base, f"alpha {alpha:g}") for base in bases for alpha in alphas], len(alphas)
    if fine:
        return [f"coarse {place // fine + 1}, fine {place % fine + 1}" for place in range(count)], fine
    if "mode" in result:
        return [f"step {place} of {count}" for place in range(1, count + 1)], count
    return _latents(result, count), None


def _latents(result: Mapping[str, Any], count: int) -> list[str]:
    seeds = _numbers(result.get("seeds"))
    if len(seeds) == count:
        return [f"seed {seed:.0f}" for seed in seeds]
    return [f"sample {place}" for place in range(1, count + 1)] if count > 1 else [""]


def _count_fine(result: Mapping[str, Any], count: int) -> int:
    """Return how many fine styles each coarse one of a mix was given; 0 where the answer does not tell."""
    z = result.get("z")
    if "cut" not in result or not isinstance(z, list) or len(z) != count:
        return 0
    if not all(isinstance(styles, list) and len(styles) == 2 for styles in z):
        return 0
    fine = next((place for place, (coarse, _) in enumerate(z) if coarse != z[0][0]), count)
    return fine if count % fine == 0 else 0


def _numbers(value: Any) -> list[float]:
    is_list = isinstance(value, list) and all(isinstance(one, int | float) for one in value)
    return list(value) if is_list else []


def _joined(first: str, second: str) -> str:
    return f"{first}, {second}" if first and second else first or second


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except OSError as err:
        raise NoPicture("the answer holds a picture that cannot be read") from err


def _enlarged(content: bytes) -> bytes:
    picture = _opened(content)
    scale = enlargement(picture.size)
    if scale == 1:
        return content
    return png(picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST))


def _sheet(rows: Sequence[Sequence[Sample]]) -> bytes:
    layout = _choose_layout(rows)
    columns, longest = layout.columns, max(map(len, rows))
    # What is too long for the page goes on below, together with what it is compared with.
    parts = [row[start : start + columns] for start in range(0, longest, columns) for row in rows if row[start:]]
    lines = [[_cell(sample, layout) for sample in part] for part in parts]
    return png(lay_out([lay_out(line, columns=columns, gap=_GAP) for line in lines], columns=1, gap=_GAP))


def _choose_layout(rows: Sequence[Sequence[Sample]]) -> _Layout:
    """Enlarge by the whole number that fills a cell, or by less where the page would be too large."""
    longest = max(max(sample.picture.size) for row in rows for sample in row)
    wished = math.ceil(_CELL / longest)
    layouts = (_lay(rows, zoom) for zoom in range(wished, 1, -1))
    return next((one for one in layouts if max(one.size) <= _PAGE), _lay(rows, 1))


def _lay(rows: Sequence[Sequence[Sample]], zoom: int) -> _Layout:
    samples = [sample for row in rows for sample in row]
    widest, highest = (max(sample.picture.size[axis] for sample in samples) * zoom for axis in (0, 1))
    letters = max(TEXT_SIZE, min(widest, highest) // _SIDE_OF_LETTERS)
    # As many abreast as make a square: large pictures leave nothing to gain by a strip. Three would leave a hole.
    square = len(samples) if len(samples) <= _MOST_ABREAST else math.ceil(math.sqrt(len(samples)))
    limit = min(_WIDEST_CAPTION * letters // TEXT_SIZE, (_PAGE + _GAP) // square - _GAP)
    caption = min(max(text_width(one.caption, size=letters) for one in samples), limit)
    width = max(math.ceil(caption), widest)
    height = line_height(letters) + highest
    parts = math.ceil(max(map(len, rows)) / max(square, (_PAGE + _GAP) // (width + _GAP)))
    columns = math.ceil(max(map(len, rows)) / parts)
    size = (columns * (width + _GAP) - _GAP, parts * len(rows) * (height + _GAP) - _GAP)
    return _Layout(zoom=zoom, width=width, letters=letters, columns=columns, size=size)


def _cell(sample: Sample, layout: _Layout) -> Image.Image:
    size = (sample.picture.width * layout.zoom, sample.picture.height * layout.zoom)
    picture = sample.picture.resize(size, Image.Resampling.NEAREST)
    cell = Image.new("RGB", (layout.width, picture.height), "white")
    cell.paste(picture, ((layout.width - picture.width) // 2, 0))
    return captioned(cell, sample.caption, size=layout.letters) if sample.caption else cell
