from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from services.core.errors import RequestInvalid
from services.rpc.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, by_time, page_request

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    id: str
    create_time: datetime


def rows(count: int) -> list[Row]:
    return [Row(f"row-{i}", NOON - timedelta(microseconds=i)) for i in range(count)]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        pytest.param(0, DEFAULT_PAGE_SIZE, id="nothing asked takes the default"),
        pytest.param(7, 7, id="what is asked"),
        pytest.param(10**6, MAX_PAGE_SIZE, id="too much is cut"),
    ],
)
def test_page_size(asked: int, given: int) -> None:
    assert page_request(asked, "", "jobs").size == given


def test_a_token_continues_after_the_last_row_to_the_microsecond() -> None:
    page = page_request(2, "", "jobs", "default").cut(rows(3), by_time)

    following = page_request(2, page.next_page_token, "jobs", "default")

    assert following.time_key == (page.items[-1].create_time, "row-1")


def test_the_last_page_has_no_token() -> None:
    assert page_request(3, "", "jobs").cut(rows(3), by_time).next_page_token == ""


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("%%%", id="no base64"),
        pytest.param("AAAA", id="no JSON"),
        pytest.param("WzFd", id="a list of numbers"),
        pytest.param("e30", id="no list"),
    ],
)
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(RequestInvalid):
        page_request(2, token, "jobs")


def test_a_token_belongs_to_its_question() -> None:
    token = page_request(1, "", "jobs", "default").cut(rows(2), by_time).next_page_token

    with pytest.raises(RequestInvalid):
        page_request(1, token, "jobs", "other")


def test_a_token_of_another_kind_of_list_is_refused_where_times_are_read() -> None:
    token = page_request(1, "", "x").cut(rows(2), lambda row: (row.id,)).next_page_token

    with pytest.raises(RequestInvalid):
        _ = page_request(1, token, "x").time_key


@pytest.mark.parametrize("depth", [500, 200_000])
def test_a_token_that_would_exhaust_the_parser_is_refused(depth: int) -> None:
    token = base64.urlsafe_b64encode(b"[" * depth).decode().rstrip("=")

    with pytest.raises(RequestInvalid):
        page_request(10, token, "jobs")


def test_a_key_that_no_database_compares_is_refused() -> None:
    page = page_request(1, "", "jobs").cut([Row("a", NOON), Row("b", NOON)], by_time)
    question, time, _ = json.loads(base64.urlsafe_b64decode(page.next_page_token + "=="))
    token = base64.urlsafe_b64encode(json.dumps([question, time, "a\0b"]).encode()).decode()

    with pytest.raises(RequestInvalid):
        page_request(1, token, "jobs")
