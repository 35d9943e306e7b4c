"""`--set KEY=VALUE` keeps the type a person meant."""

from __future__ import annotations

from typing import Any

import pytest

from services.client.overrides import OverrideInvalid, nest, parse_assignments, parse_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("3", 3, id="an integer stays an integer"),
        pytest.param("0.01", 0.01, id="a decimal"),
        pytest.param("1e-3", 1e-3, id="an exponent"),
        pytest.param(".5", 0.5, id="no leading zero, as people type"),
        pytest.param("+2", 2.0, id="a sign JSON refuses"),
        pytest.param("true", True, id="a boolean"),
        pytest.param("null", None, id="nothing"),
        pytest.param("[1, 2]", [1, 2], id="a list"),
        pytest.param('{"a": 1}', {"a": 1}, id="an object"),
        pytest.param("auto", "auto", id="a word stays a word"),
        pytest.param('"3"', "3", id="quotes force text"),
        pytest.param("", "", id="an empty value is empty text"),
        pytest.param("NaN", "NaN", id="no JSON number, so text for the server to refuse"),
        pytest.param("1.2.3", "1.2.3", id="not quite a number"),
    ],
)
def test_a_value_is_read_as_the_type_it_looks_like(text: str, expected: Any) -> None:
    value = parse_value(text)

    assert value == expected
    assert type(value) is type(expected)


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse_assignments(["labels.note=a=b"]) == {"labels.note": "a=b"}


@pytest.mark.parametrize(
    "assignment",
    [
        pytest.param("optim.lr", id="no value"),
        pytest.param("=3", id="no key"),
        pytest.param("optim..lr=3", id="an empty section"),
        pytest.param("optim lr=3", id="a space in the key"),
    ],
)
def test_an_unreadable_assignment_shows_how_to_write_it(assignment: str) -> None:
    with pytest.raises(OverrideInvalid, match=r"KEY=VALUE, such as --set optim\.lr=0\.01"):
        parse_assignments([assignment])


def test_half_a_parameter_shows_how_to_write_one() -> None:
    with pytest.raises(OverrideInvalid, match=r"--param 'n': write KEY=VALUE, such as --param score_threshold=0\.3"):
        parse_assignments(["n"], option="--param")


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(OverrideInvalid, match=r"optim\.lr is given twice"):
        parse_assignments(["optim.lr=1", "optim.lr=2"])


def test_dotted_keys_become_sections() -> None:
    nested = nest(parse_assignments(["optim.lr=0.01", "optim.momentum=0.9", "limits.max_steps=5"]))

    assert nested == {"optim": {"lr": 0.01, "momentum": 0.9}, "limits": {"max_steps": 5}}


@pytest.mark.parametrize("assignments", [["optim=1", "optim.lr=2"], ["optim.lr=2", "optim=1"]])
def test_a_key_that_is_a_value_and_a_section_is_refused(assignments: list[str]) -> None:
    with pytest.raises(OverrideInvalid, match="optim"):
        nest(parse_assignments(assignments))
