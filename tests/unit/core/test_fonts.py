"""Words in pictures, judged by whether each letter has a shape of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from services.core import fonts

NO_CHARACTER = "\uffff"


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without any font but Pillow's own."""
    monkeypatch.setattr(fonts, "_candidates", lambda: iter(["/nowhere/NoSuchFont.ttf"]))
    _forget()
    yield
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    fonts._source.cache_clear()
    fonts.font.cache_clear()


def shape(text: str) -> bytes:
    page = Image.new("L", (40, 40))
    ImageDraw.Draw(page).text((5, 5), fonts.legible(text), fill=255, font=fonts.font(20))
    return page.tobytes()


@pytest.mark.parametrize(
    "letters",
    [
        pytest.param("\u00e4\u00f6\u00fc\u00df\u00e9\u0142\u0159\u0131\u0219", id="Latin"),
        pytest.param("\u03b1\u03b2\u03b3\u03ac\u03a9", id="Greek"),
        pytest.param("\u0447\u0435\u0442\u044b\u0440\u0451\u0457\u0416", id="Cyrillic"),
    ],
)
def test_every_letter_has_a_shape_of_its_own(letters: str) -> None:
    shapes = {shape(letter) for letter in letters}

    assert len(shapes) == len(letters)
    assert shape(NO_CHARACTER) not in shapes


def test_accents_that_are_letters_of_their_own_join_the_letter_before() -> None:
    assert shape("u\u0308") == shape("\u00fc")


def test_the_font_is_found_without_matplotlib_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "matplotlib" / "mpl-data" / "fonts" / "ttf"
    folder.mkdir(parents=True)
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)

    assert next(fonts._candidates()) == str(folder / "DejaVuSans.ttf")


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("f\u00fcnf, \u00e9t\u00e9", "funf, ete", id="accents are left out"),
        pytest.param("stra\u00dfe", "strasse", id="a letter that stands for two"),
        pytest.param("\u0141\u00f3d\u017a, s\u00f8, \u00e6\u0153", "Lodz, so, aeoe", id="letters with strokes"),
        pytest.param("\u0434\u043e\u043c", "\u0434\u043e\u043c", id="other scripts stay"),
    ],
)
def test_where_no_font_is_installed_latin_is_written_in_ascii(text: str, shown: str) -> None:
    assert fonts.legible(text) == shown


@pytest.mark.usefixtures("bare_machine")
def test_where_no_font_is_installed_text_is_drawn_all_the_same() -> None:
    assert shape("\u00fc") == shape("u") != shape(NO_CHARACTER)
    assert shape("\u0434") == shape(NO_CHARACTER)


def test_letters_that_the_font_lacks_are_drawn_as_boxes() -> None:
    assert shape("\u6f22") == shape(NO_CHARACTER)
