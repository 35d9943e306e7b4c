"""Pods, budgets, services and secrets keep the rules an operator would ask for."""

from __future__ import annotations

import dataclasses

import pytest

from services.agent import readiness
from tests.stack.manifests import Overlay, Pod, load, quantity, selects
from tests.stack.pod_policy import violations

SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY")
REFERENCED = {"trainyard-database", "trainyard-broker", "trainyard-objects"}


def test_every_pod_keeps_the_policy(overlay: Overlay) -> None:
    assert [problem for pod in overlay.pods.values() for problem in violations(pod)] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image": "trainyard/api"}, "another image tomorrow"),
        ({"image": "registry:5000/trainyard/api:latest"}, "another image tomorrow"),
        ({"resources": {"requests": {"cpu": "1"}, "limits": {}}}, "no limit of cpu"),
        ({"readinessProbe": None}, "no readinessProbe"),
        ({"securityContext": {"readOnlyRootFilesystem": False}}, "write to its root"),
        ({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}}, "capabilities"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "gain privileges"),
    ],
)
def test_a_container_that_breaks_a_rule_is_found(change: dict[str, object], problem: str) -> None:
    pod = load("dev").pods["api"]
    broken = {key: value for key, value in {**pod.container, **change}.items() if value is not None}

    found = violations(dataclasses.replace(pod, spec={**pod.spec, "containers": [broken]}))

    assert any(problem in one for one in found)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"securityContext": {"runAsNonRoot": False}}, "run as root"),
        ({"automountServiceAccountToken": True}, "token of the cluster"),
        ({"volumes": [{"name": "logs", "hostPath": {"path": "/var/log"}}]}, "restricted pods"),
        ({"volumes": [{"name": "state", "emptyDir": {}}]}, "no size limit"),
        ({"volumes": [{"name": "state", "emptyDir": {"sizeLimit": "1Ti"}}]}, "evicted"),
        ({"hostNetwork": True}, "namespace of its node"),
    ],
)
def test_a_pod_that_breaks_a_rule_is_found(change: dict[str, object], problem: str) -> None:
    pod = load("dev").pods["worker"]

    found = violations(dataclasses.replace(pod, spec={**pod.spec, **change}))

    assert any(problem in one for one in found)


def test_namespaces_refuse_pods_that_are_not_restricted(overlay: Overlay) -> None:
    (namespace,) = overlay.of("Namespace").values()

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {one["metadata"].get("namespace") for one in overlay.objects} <= {namespace["metadata"]["name"], None}


def test_nobody_has_rights_or_a_token_in_the_cluster(overlay: Overlay) -> None:
    accounts = overlay.of("ServiceAccount")

    assert {pod.spec["serviceAccountName"] for pod in overlay.pods.values()} == accounts.keys()
    assert not any(account.get("automountServiceAccountToken", True) for account in accounts.values())
    assert not [one["kind"] for one in overlay.objects if "Role" in one["kind"]]


def test_priority_classes_exist_and_training_never_pushes_out(overlay: Overlay) -> None:
    classes = overlay.of("PriorityClass")
    training = classes["trainyard-training"]

    assert {pod.spec["priorityClassName"] for pod in overlay.pods.values()} == classes.keys()
    assert training["preemptionPolicy"] == "Never"
    assert training["value"] == min(one["value"] for one in classes.values())


def test_budgets_protect_what_answers_and_never_block_a_drain(overlay: Overlay) -> None:
    budgets = overlay.of("PodDisruptionBudget")

    protected = {
        (name, pod.name)
        for name, budget in budgets.items()
        for pod in overlay.pods.values()
        if selects(budget["spec"]["selector"], pod.labels)
    }

    assert protected == {("api", "api"), ("torchserve", "torchserve")}
    assert all(budget["spec"]["maxUnavailable"] >= 1 for budget in budgets.values())


def test_services_and_workloads_select_their_own_pods_only(overlay: Overlay) -> None:
    selectors = {name: {"matchLabels": one["spec"]["selector"]} for name, one in overlay.of("Service").items()}
    owners = {**overlay.of("Deployment"), **overlay.of("StatefulSet")}

    for name, pod in overlay.long_running.items():
        assert [other for other, one in selectors.items() if selects(one, pod.labels)] == [name]
        assert [other for other, one in owners.items() if selects(one["spec"]["selector"], pod.labels)] == [name]


def test_services_lead_to_ports_that_pods_declare(overlay: Overlay) -> None:
    for name, service in overlay.of("Service").items():
        for port in service["spec"]["ports"]:
            assert overlay.pods[name].ports[port["targetPort"]] == port["port"], (name, port)


def test_replicas_spread_over_nodes(overlay: Overlay) -> None:
    for pod in overlay.pods.values():
        if pod.kind == "Deployment":
            constraints = pod.spec["topologySpreadConstraints"]
            assert "kubernetes.io/hostname" in {one["topologyKey"] for one in constraints}
            assert all(selects(one["labelSelector"], pod.labels) for one in constraints)
            # A full zone must not keep a pod from starting.
            assert all(one["whenUnsatisfiable"] == "ScheduleAnyway" for one in constraints)


def test_workers_have_room_for_loaders_and_are_left_alone(overlay: Overlay) -> None:
    for pod in _workers(overlay):
        (mount,) = (one for one in pod.container["volumeMounts"] if one["mountPath"] == "/dev/shm")
        (volume,) = (one for one in pod.spec["volumes"] if one["name"] == mount["name"])
        assert volume["emptyDir"]["medium"] == "Memory"
        assert quantity(volume["emptyDir"]["sizeLimit"]) >= quantity("1Gi")
        assert pod.annotations["karpenter.sh/do-not-disrupt"] == "true"
        assert pod.annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_secrets_are_named_and_only_a_trial_brings_its_own() -> None:
    for name in ("staging", "prod"):
        overlay = load(name)
        assert overlay.of("Secret") == {}
        assert set().union(*(pod.secrets for pod in overlay.pods.values())) == REFERENCED


def test_no_variable_holds_a_secret_in_the_open(overlay: Overlay) -> None:
    for pod in overlay.pods.values():
        written = {**overlay.settings, **pod.env}
        names = [name for name in written if any(word in name for word in SECRET_WORDS)]
        # A variable that names a file is none.
        assert [name for name in names if not written[name].startswith("/run/secrets/")] == [], pod.name


def test_the_api_is_asked_in_grpc_and_everything_else_by_http_or_its_own_means(overlay: Overlay) -> None:
    api = overlay.pods["api"].container

    assert api["livenessProbe"]["grpc"]["service"] == "liveness"
    # Readiness also needs the database; life does not.
    assert "service" not in api["readinessProbe"]["grpc"]
    for pod in _ours(overlay):
        if pod.name != "api":
            assert all("httpGet" in pod.container[probe] for probe in ("livenessProbe", "readinessProbe")), pod.name


def test_torchserve_is_asked_through_its_agent_because_no_prober_has_a_token(overlay: Overlay) -> None:
    serving = overlay.pods["torchserve"].container
    asked = {probe: serving[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert {one["port"] for one in asked.values()} == {"metrics"}
    assert asked["startupProbe"]["path"] == asked["readinessProbe"]["path"] == readiness.PATH
    # The agent lives on while it restarts TorchServe.
    assert asked["livenessProbe"]["path"] != readiness.PATH


def test_probes_ask_ports_that_pods_declare(overlay: Overlay) -> None:
    for pod in overlay.long_running.values():
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = pod.container[probe]
            for way in ("httpGet", "tcpSocket"):
                assert way not in asked or asked[way]["port"] in pod.ports, (pod.name, probe)
            assert "grpc" not in asked or asked["grpc"]["port"] in pod.ports.values(), (pod.name, probe)


def _workers(overlay: Overlay) -> list[Pod]:
    return [pod for name, pod in overlay.pods.items() if name.startswith("worker")]


def _ours(overlay: Overlay) -> list[Pod]:
    return [pod for pod in overlay.long_running.values() if pod.kind == "Deployment"]
