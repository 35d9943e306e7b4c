"""Which id a person gets from the name of a folder."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from services.client.people import identity_id, people
from services.core.names import SLUG


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ada Lovelace", "ada-lovelace"),
        ("Ada Łovelace", "ada-lovelace"),
        ("Çelik", "celik"),
        ("İnci Iş\u0131k", "inci-isik"),
        ("Weiß", "weiss"),
        ("Þórður Æðelstan", "thordur-aedelstan"),
        ("Bjørn-Đorđe", "bjorn-dorde"),
        ("Nguyễn", "nguyen"),
        ("Ka\u02bbahumanu", "ka-ahumanu"),
        ("-3-", "3"),
    ],
)
def test_latin_letters_stay_readable(name: str, expected: str) -> None:
    assert identity_id(name) == identity_id(unicodedata.normalize("NFD", name)) == expected


@pytest.mark.parametrize("name", ["Анна", "Анна 2", "李 Wei", "王 Wei", "محمد", "สมชาย", "Νίκος", "!!!", "и" * 200])
def test_a_name_of_another_script_makes_an_id_that_stays(name: str) -> None:
    made = identity_id(name)

    assert SLUG.fullmatch(made)
    assert made.startswith("person-")
    assert len(made) == len("person-") + 10
    assert made == identity_id(unicodedata.normalize("NFD", name))


def test_names_of_another_script_are_told_apart() -> None:
    assert identity_id("Анна") == "person-25f4b21327"
    assert len({identity_id(name) for name in ("Анна 2", "Пётр 2", "李 Wei", "王 Wei", "!", "?")}) == 6


def test_no_folder_stops_the_others(tmp_path: Path) -> None:
    for name in ("Çelik", "elik", "Анна"):
        (tmp_path / name).mkdir()

    assert {folder.name for folder in people(tmp_path).values()} == {"Çelik", "elik", "Анна"}
