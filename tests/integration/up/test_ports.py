"""Ports that nobody else has."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from services.up.ports import PortPicker, PortTaken


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        # gRPC servers listen with SO_REUSEPORT, which would let a second server in.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def test_a_taken_port_gives_way_to_a_free_one(taken: int) -> None:
    port = PortPicker("127.0.0.1").pick(taken)

    assert port != taken
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))


def test_a_taken_port_that_was_asked_for_is_an_error(taken: int) -> None:
    with pytest.raises(PortTaken, match=rf"TRAINYARD_API_PORT={taken}: another process has"):
        PortPicker("127.0.0.1").pick(taken, is_fixed=True, setting="TRAINYARD_API_PORT")


def test_no_port_is_given_twice() -> None:
    picker = PortPicker("127.0.0.1")
    first = picker.pick(0)

    assert len({first, picker.pick(first), picker.pick(first), picker.pick(0)}) == 4


def test_platforms_that_start_at_once_meet_on_no_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        wanted: int = probe.getsockname()[1]

    ports = [PortPicker("127.0.0.1").pick(wanted) for _ in range(3)]

    assert ports[0] == wanted
    assert len(set(ports)) == 3
