"""Times, documents and text on their way into and out of columns."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from services.db.types import CleanText, UtcTime, dump_json

MOMENTS = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS)
def test_time_keeps_its_microseconds_on_sqlite(moment: datetime) -> None:
    column, dialect = UtcTime(), sqlite.dialect()

    stored = column.process_bind_param(moment, dialect)

    assert isinstance(stored, float)
    assert column.process_result_value(stored, dialect) == moment


def test_time_of_another_zone_comes_back_in_utc() -> None:
    moment = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=5)))

    found = UtcTime().process_result_value(moment, postgresql.dialect())

    assert found == moment
    assert found is not None
    assert found.tzinfo is UTC


def test_time_without_its_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        UtcTime().process_bind_param(datetime(2026, 5, 1), sqlite.dialect())  # noqa: DTZ001


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"a": [1, 2.5, None, "x"]}, {"a": [1, 2.5, None, "x"]}, id="plain values stay"),
        pytest.param({"a": float("nan")}, {"a": "NaN"}, id="no number"),
        pytest.param([float("inf"), -float("inf")], ["Infinity", "-Infinity"], id="infinities"),
        pytest.param({"a\0": "b\0"}, {"a\ufffd": "b\ufffd"}, id="NUL, in keys too"),
        pytest.param("\ud800", "?", id="lone surrogate"),
        pytest.param(
            "\\u0000 as typed, \U0001f600", "\\u0000 as typed, \U0001f600", id="what only looks like one stays"
        ),
    ],
)
def test_document_is_always_json_that_postgresql_takes(value: Any, expected: Any) -> None:
    text = dump_json(value)

    assert json.loads(text) == expected
    assert "\0" not in text


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_text_of_any_program_can_be_stored(text: str) -> None:
    stored = CleanText().process_bind_param(text, postgresql.dialect())

    assert stored is not None
    assert "\0" not in stored.encode().decode()
