"""A part that is missing is told about: on CI by a failure, elsewhere by a skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.stack.install import PartMissing, find_program, required_parts

ABSENT = "trainyard-no-such-program"


@pytest.fixture(autouse=True)
def _not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_a_program_is_found_beside_the_usual_places(tmp_path: Path) -> None:
    (tmp_path / ABSENT).touch()

    assert find_program(ABSENT, package="p", places=(tmp_path,)) == tmp_path / ABSENT


def test_what_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(PartMissing, match=f"no `{ABSENT}`.*install the package `p`"):
        find_program(ABSENT, package="p")


@pytest.mark.parametrize(("variable", "expected"), [("true", PartMissing), ("", pytest.skip.Exception)])
def test_ci_fails_and_a_laptop_skips(
    monkeypatch: pytest.MonkeyPatch, variable: str, expected: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", variable)

    with pytest.raises(expected), required_parts():
        find_program(ABSENT, package="p")
