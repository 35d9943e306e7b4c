"""Ports that nobody else has."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.errors import SettingsInvalid
from services.up import endpoints
from services.up.endpoints import Endpoints, TorchServePorts
from services.up.plan import make_plan
from services.up.ports import PortPicker, PortTaken, check_host
from tests.stack.platform import settings_of
from tests.stack.ports import free_port


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


def test_where_the_port_is_taken_the_last_platform_s_comes_next(taken: int) -> None:
    last = free_port()

    assert PortPicker("127.0.0.1").pick(taken, last=last) == last


def test_a_free_port_comes_before_the_last_platform_s(taken: int) -> None:
    wanted = free_port()

    assert PortPicker("127.0.0.1").pick(wanted, last=taken) == wanted


def test_the_last_platform_s_port_may_be_taken_as_well(taken: int) -> None:
    assert PortPicker("127.0.0.1").pick(taken, last=taken) != taken


@pytest.mark.parametrize("host", ["203.0.113.5", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused_by_the_name_of_its_setting(host: str) -> None:
    with pytest.raises(SettingsInvalid, match=rf"TRAINYARD_HOST={host}: servers cannot listen there \(.+\); use an"):
        check_host(host)


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


def test_a_platform_answers_where_the_last_one_did_while_its_usual_ports_are_taken(tmp_path: Path) -> None:
    ports = TorchServePorts(inference=free_port(), management=0, metrics=0, grpc=0, grpc_management=0)
    parts = {"api": endpoints.PartStatus(state="ready", metrics_port=free_port())}
    last = Endpoints(address=f"127.0.0.1:{free_port()}", pid=1, is_ready=True, parts=parts, torchserve=ports)
    endpoints.write(tmp_path, last)
    endpoints.remove(tmp_path)
    # Ports of the environment are no usual ones; 0 is one that is never free.
    settings = settings_of({}, tmp_path).model_copy(update={"api_port": 0, "torchserve_inference_port": 0})

    plan = make_plan(settings, {}, endpoints.read_last(tmp_path))

    assert endpoints.read(tmp_path) is None
    assert plan.address == last.address
    assert plan.torchserve.inference == ports.inference
