from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from services.rpc.caller import callers
from services.rpc.rate import Admission, Buckets


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Caller:
    """As much of a call's context as limits look at."""

    address: str
    metadata: tuple[tuple[str, Any], ...] = ()

    def peer(self) -> str:
        return self.address

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        return self.metadata


def waits(buckets: Buckets, caller: str, count: int) -> list[float]:
    return [buckets.take(caller).wait_seconds for _ in range(count)]


def test_a_bucket_holds_a_burst_and_then_gains_its_rate() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 3, clock=clock)

    assert waits(buckets, "a", 3) == [0, 0, 0]
    assert buckets.take("a") == Admission(pytest.approx(0.5), is_refused=True)
    clock.now = 0.25
    assert buckets.take("a") == Admission(pytest.approx(0.25), is_refused=True)
    clock.now = 0.5
    assert buckets.take("a") == Admission()
    clock.now = 100
    assert waits(buckets, "a", 4) == [0, 0, 0, pytest.approx(0.5)]


def test_a_bucket_lends_what_it_gains_within_its_patience_and_spaces_it_out() -> None:
    clock = Clock()
    buckets = Buckets(4.0, 1, patience_seconds=0.6, clock=clock)

    given = [buckets.take("a") for _ in range(4)]

    assert given[:3] == [Admission(), Admission(pytest.approx(0.25)), Admission(pytest.approx(0.5))]
    assert given[3] == Admission(pytest.approx(0.75), is_refused=True)
    clock.now = 0.25
    assert not buckets.take("a").is_refused
    assert buckets.take("a").is_refused


def test_callers_have_buckets_of_their_own() -> None:
    buckets = Buckets(1.0, 1, clock=Clock())

    assert not buckets.take("a").is_refused
    assert buckets.take("a").is_refused
    assert not buckets.take("b").is_refused


def test_a_flood_of_callers_does_not_fill_memory_and_keeps_the_busiest() -> None:
    clock = Clock()
    buckets = Buckets(1.0, 1, clock=clock, max_callers=100)
    buckets.take("busy")

    for number in range(1000):
        clock.now += 0.0001
        buckets.take(f"caller-{number}")
        assert buckets.take("busy").is_refused

    assert len(buckets._levels) <= 100


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("ipv4:192.0.2.7:50123", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2::7%5D:50123", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2:ffff::7]:50123", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:50123", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50123", "fe80::/64"),
        ("unix:/run/api.sock", "unix:/run/api.sock"),
        ("", ""),
    ],
)
def test_a_caller_is_an_address_without_its_port_or_a_whole_network_of_ipv6(peer: str, key: str) -> None:
    assert callers(Caller(peer)) == (key, key)  # type: ignore[arg-type]


def test_a_token_counts_beside_the_address_and_is_not_kept_itself() -> None:
    first = callers(Caller("ipv4:1.2.3.4:5", (("authorization", "Bearer secret"),)))  # type: ignore[arg-type]
    elsewhere = callers(Caller("ipv4:9.9.9.9:5", (("authorization", "Bearer secret"),)))  # type: ignore[arg-type]

    assert first[0] == "1.2.3.4"
    assert first[1] == elsewhere[1]
    assert "secret" not in first[1]
