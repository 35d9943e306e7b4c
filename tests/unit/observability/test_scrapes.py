"""The scrape configuration: every part, at the ports where its process listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stack.manifests import load

OURS = {"api", "controller", "worker", "worker-gpu", "torchserve"}


@pytest.fixture(scope="module")
def config(deploy: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    return document


def scraped(config: dict[str, Any]) -> dict[str, set[int]]:
    """Return the ports that are scraped of each part."""
    return {
        job["job_name"]: {source["port"] for source in job.get("dns_sd_configs", ())}
        for job in config["scrape_configs"]
    }


def test_parts_are_scraped_where_they_are_in_kubernetes(config: dict[str, Any]) -> None:
    manifests = {
        name: {port for label, port in pod.ports.items() if label in ("metrics", "server-metrics")}
        for name, pod in load("prod").pods.items()
    }

    assert {name: ports for name, ports in scraped(config).items() if name in OURS} == {
        name: ports for name, ports in manifests.items() if name in OURS
    }


def test_every_replica_is_found_by_the_name_of_its_part(config: dict[str, Any]) -> None:
    for job in config["scrape_configs"]:
        for source in job.get("dns_sd_configs", ()):
            assert (source["names"], source["type"]) == ([job["job_name"]], "A")


def test_the_two_endpoints_of_a_part_are_told_from_each_other(config: dict[str, Any]) -> None:
    (torchserve,) = [job for job in config["scrape_configs"] if job["job_name"] == "torchserve"]
    labels = {rule["regex"]: rule["replacement"] for rule in torchserve["relabel_configs"]}

    assert labels == {f".*:{port}": name for port, name in ((7074, "metrics"), (7082, "server-metrics"))}
