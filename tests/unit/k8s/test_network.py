"""The edges between pods are those that the code needs, and no other."""

from __future__ import annotations

import ipaddress

from tests.stack.manifests import Overlay, load
from tests.stack.reach import Network

DATABASE = {("postgres", 5432)}
BROKER = {("redis", 6379)}
OBJECTS = {("minio", 9000)}
EDGES = {
    "api": DATABASE | OBJECTS | {("torchserve", 7080)},
    "controller": DATABASE | BROKER | OBJECTS,
    "worker": DATABASE | BROKER | OBJECTS,
    "torchserve": DATABASE | OBJECTS,
    "migrate": DATABASE,
}
SECRETS = {"trainyard-database": "database", "trainyard-broker": "broker", "trainyard-objects": "objects"}
MANAGEMENT_PORTS = (7081, 7084)
CLIENTS = {"trainyard/clients": "true"}
MONITORING = {"trainyard/monitoring": "true"}


def test_pods_reach_what_they_need_and_nothing_else() -> None:
    trial = load("dev")
    network = Network(trial)
    ports = {port for pod in trial.pods.values() for port in pod.ports.values()} | set(MANAGEMENT_PORTS)

    edges = {
        (source.name, target.name, port)
        for source in trial.pods.values()
        for target in trial.pods.values()
        for port in ports
        if network.may_connect(source, target, port)
    }

    assert edges == {(source, *edge) for source, targets in EDGES.items() for edge in targets}


def test_pods_may_reach_a_service_exactly_when_they_hold_its_secret(overlay: Overlay) -> None:
    for pod in overlay.pods.values():
        labels = {key.removeprefix("trainyard/uses-") for key in pod.labels if key.startswith("trainyard/uses-")}
        assert labels == {SECRETS[secret] for secret in pod.secrets if secret in SECRETS}, pod.name


def test_other_namespaces_reach_the_api_when_they_may_call_it(overlay: Overlay) -> None:
    network = Network(overlay)

    entered = {
        (pod.name, port)
        for pod in overlay.pods.values()
        for port in pod.ports.values()
        if network.may_enter(CLIENTS, pod, port)
    }

    assert entered == {("api", 7070)}


def test_monitoring_reaches_every_port_of_metrics_and_no_other(overlay: Overlay) -> None:
    network = Network(overlay)

    entered = {
        (pod.name, name)
        for pod in overlay.pods.values()
        for name, port in pod.ports.items()
        if network.may_enter(MONITORING, pod, port)
    }

    assert entered == {
        (pod.name, name) for pod in overlay.pods.values() for name in pod.ports if name in ("metrics", "server-metrics")
    }


def test_strangers_reach_nothing(overlay: Overlay) -> None:
    network = Network(overlay)

    for pod in overlay.pods.values():
        assert not any(network.may_enter({}, pod, port) for port in (*pod.ports.values(), *MANAGEMENT_PORTS)), pod.name


def test_a_trial_leads_nowhere_outside_the_cluster() -> None:
    trial = load("dev")

    for pod in trial.pods.values():
        assert {port for _, port in Network(trial).outside(pod)} <= {53}, pod.name


def test_outside_services_are_private_addresses_on_their_own_ports() -> None:
    for name in ("staging", "prod"):
        overlay = load(name)
        for pod in overlay.pods.values():
            outside = Network(overlay).outside(pod)
            needed = {"trainyard-database": 5432, "trainyard-broker": 6379, "trainyard-objects": 443}
            assert {port for _, port in outside} == {53} | {needed[secret] for secret in pod.secrets}, pod.name
            for block, _ in outside:
                address = ipaddress.ip_network(block)
                assert address.is_private or address.is_link_local, block


def test_management_of_torchserve_is_published_nowhere(overlay: Overlay) -> None:
    published = {port for pod in overlay.pods.values() for port in pod.ports.values()}
    served = {port["port"] for service in overlay.of("Service").values() for port in service["spec"]["ports"]}

    assert not {*published, *served} & {*MANAGEMENT_PORTS}
