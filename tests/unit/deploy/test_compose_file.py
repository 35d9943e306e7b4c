"""compose.yaml as people start it: bounded, unprivileged, without passwords, and in step with what it is made from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.core.settings import Settings

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = {name: spec for name, spec in SERVICES.items() if name != "migrate"}
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+):?-([^}]*)\}")
# What the manifests for Kubernetes call the same processes.
WORKLOADS = {
    "api": "api/deployment",
    "controller": "controller/deployment",
    "worker": "worker/deployment",
    "torchserve": "torchserve/deployment",
    "migrate": "migrate/job",
    "postgres": "postgres/statefulset",
    "redis": "redis/statefulset",
    "minio": "minio/statefulset",
}


def pod(workload: str) -> dict[str, Any]:
    manifest = yaml.safe_load((ROOT / "k8s" / "base" / f"{WORKLOADS[workload]}.yaml").read_text())
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def default(value: str) -> str:
    """Return a value with every variable at its default."""
    return VARIABLE.sub(r"\2", value)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_and_has_no_privileges(name: str) -> None:
    spec = SERVICES[name]

    assert spec["mem_limit"]
    assert spec["pids_limit"] > 0
    assert "cpus" in spec or "cpu_shares" in spec
    assert spec["read_only"] is True
    assert spec["cap_drop"] == ["ALL"]
    assert spec["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & spec.keys()
    assert int(spec["user"].split(":")[0]) > 0
    assert spec["stop_grace_period"].endswith("s")
    assert spec["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", LASTING)
def test_a_service_that_lasts_tells_its_health_and_comes_back(name: str) -> None:
    assert LASTING[name]["healthcheck"]["test"]
    assert LASTING[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_named_with_its_version(name: str) -> None:
    tag = default(SERVICES[name]["image"]).rpartition("/")[2].partition(":")[2]

    assert tag not in ("", "latest")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_after_what_it_needs_is_healthy(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        ends = needed == "migrate"
        assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy")


def test_ports_are_published_on_loopback_unless_someone_says_otherwise() -> None:
    published = [default(port) for spec in SERVICES.values() for port in spec.get("ports", ())]

    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_only_what_is_published_can_reach_the_world() -> None:
    assert COMPOSE["networks"]["platform"]["internal"] is True
    for name, spec in SERVICES.items():
        assert ("edge" in spec["networks"]) == bool(spec.get("ports")), name


def test_passwords_come_as_files_and_every_file_is_made_by_the_script() -> None:
    made = set(re.findall(r"^keep (\w+)", (ROOT / "deploy" / "secrets.sh").read_text(), re.MULTILINE))
    used = {secret for spec in SERVICES.values() for secret in spec.get("secrets", ())}

    assert COMPOSE["secrets"].keys() == used == made
    for spec in SERVICES.values():
        for name in spec.get("environment", {}):
            is_secret = re.search("PASS|SECRET|KEY|TOKEN", name) is not None
            assert not is_secret or name.endswith("_FILE"), name
            assert (
                not name.endswith("_FILE") or spec["environment"][name].removeprefix("/run/secrets/") in spec["secrets"]
            )


def test_every_setting_and_every_secret_of_ours_exists() -> None:
    fields = {f"trainyard_{name}" for name in Settings.model_fields}
    names = {name.lower() for spec in SERVICES.values() for name in spec.get("environment", {})}

    assert {name for name in names if name.startswith("trainyard_")} <= fields
    assert {name for name in COMPOSE["secrets"] if name.startswith("trainyard_")} <= fields


def test_the_example_of_the_environment_lists_every_variable_with_its_default() -> None:
    example = dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    used = set(VARIABLE.findall(TEXT))

    assert "${" not in VARIABLE.sub("", TEXT)
    assert {name for name, _ in used} == example.keys() - {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}
    assert dict(used) == {name: example[name] for name, _ in used}
    assert len(used) == len({name for name, _ in used})


@pytest.mark.parametrize("name", ["api", "controller", "worker", "migrate", "redis", "minio"])
def test_a_process_is_started_as_on_kubernetes(name: str) -> None:
    container = pod(name)["containers"][0]
    command = [*container["command"], *container.get("args", ())]

    assert [word.replace("/run/secrets/redis_conf", "CONF") for word in SERVICES[name]["command"]] == [
        word.replace("/run/secrets/redis/redis.conf", "CONF") for word in command
    ]


@pytest.mark.parametrize("name", WORKLOADS)
def test_image_user_and_time_to_stop_are_those_on_kubernetes(name: str) -> None:
    spec, other = SERVICES[name], pod(name)
    image, other_image = default(spec["image"]), other["containers"][0]["image"]

    assert image == other_image or image.rpartition(":")[0] == other_image
    assert int(spec["user"].split(":")[0]) == other["securityContext"]["runAsUser"]
    assert int(spec["stop_grace_period"][:-1]) >= other["terminationGracePeriodSeconds"] - 30


def test_the_time_to_stop_a_worker_fits_its_drain() -> None:
    timings = Settings.model_fields["timings"].default
    seconds = int(SERVICES["worker"]["stop_grace_period"][:-1])

    assert seconds >= timings.drain_budget + timings.term_grace + 30


def test_both_kinds_of_workers_differ_in_what_they_consume() -> None:
    cpu, gpu = (
        set(SERVICES[name]["environment"]["TRAINYARD_WORKER_QUEUES"].split(",")) for name in ("worker", "worker-gpu")
    )

    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert not cpu & gpu


def test_prometheus_finds_every_part_by_a_name_compose_gives() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    names = {name for job in config["scrape_configs"] for one in job.get("dns_sd_configs", ()) for name in one["names"]}

    assert names <= SERVICES.keys()
    assert {"api", "controller", "worker", "worker-gpu", "torchserve"} <= names
