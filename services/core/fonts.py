"""The font of every picture that has words, and the words as it can show them.

Names are anyone's: Pillow's own font has ASCII only and draws a box for every other letter. DejaVu covers Latin,
Greek and Cyrillic; it comes with matplotlib, which is not imported for it, and with most systems. Pillow only.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_INSTALLED = ("DejaVuSans.ttf", "Arial.ttf", "arial.ttf")
"""What Pillow is to look for in the folders of the system; not every system has DejaVu."""
_LATIN = re.compile(r"LATIN (?P<case>SMALL|CAPITAL) (?:LETTER|LIGATURE) (?P<letter>[A-Z]{1,2})(?: WITH .*)?")
_SHARP_S = {"\u00df": "ss", "\u1e9e": "SS"}


@cache
def font(size: int) -> Font:
    """Return the font at so many pixels: one with all of Latin, Greek and Cyrillic, or Pillow's own of ASCII."""
    source = _source()
    # Pillow unpacks its own anew at every call, which takes longer than the text.
    return ImageFont.load_default(size=size) if source is None else ImageFont.truetype(source, size)


def legible(text: str) -> str:
    """Return text as the font can show it: composed, or without accents where the font has ASCII only.

    What the font lacks all the same stays as it is, and is drawn as a box.
    """
    # Names of files from some systems have accents as letters of their own, which would stand beside the others.
    text = unicodedata.normalize("NFC", text)
    return text if _source() is not None else "".join(_fold(letter) for letter in text)


@cache
def _source() -> str | None:
    """Return what Pillow opens as the font; None where the machine has none."""
    for candidate in _candidates():
        try:
            ImageFont.truetype(candidate, 12)
        except OSError:
            continue
        return candidate
    return None


def _candidates() -> Iterator[str]:
    spec = importlib.util.find_spec("matplotlib")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        yield str(Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")
    yield from _INSTALLED


def _fold(letter: str) -> str:
    if letter.isascii():
        return letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    if plain.isascii():
        return plain
    # Strokes are no accents to Unicode, and some letters are two, such as ae: their names say which.
    named = _LATIN.fullmatch(unicodedata.name(letter, ""))
    if named is None:
        return _SHARP_S.get(letter, letter)
    return named["letter"] if named["case"] == "CAPITAL" else named["letter"].lower()
