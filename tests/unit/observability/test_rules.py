"""The rules: one source, series that exist, and a test for every alert."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stack.manifests import load
from tests.stack.metric_names import known_series

SERIES = re.compile(r"\btrainyard_\w+")
RECORDED = re.compile(r"\btrainyard:\w+(?::\w+)?")


@pytest.fixture(scope="module")
def rules(deploy: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((deploy / "prometheus" / "rules" / "trainyard.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts(rules: list[dict[str, Any]]) -> set[str]:
    return {rule["alert"] for rule in rules if "alert" in rule}


def unwrapped(document: Any) -> Any:
    """Return a document with every text on one line: renderers fold long ones as they like."""
    if isinstance(document, dict):
        return {key: unwrapped(value) for key, value in document.items()}
    if isinstance(document, list):
        return [unwrapped(one) for one in document]
    return " ".join(document.split()) if isinstance(document, str) else document


def test_kubernetes_has_the_same_rules(deploy: Path) -> None:
    ours = yaml.safe_load((deploy / "prometheus" / "rules" / "trainyard.yml").read_text())

    for overlay in ("staging", "prod"):
        (resource,) = load(overlay).of("PrometheusRule").values()
        assert unwrapped(resource["spec"]["groups"]) == unwrapped(ours["groups"]), "run `make rules`"


def test_rules_ask_for_series_that_the_code_exposes(rules: list[dict[str, Any]]) -> None:
    known = known_series().keys()

    for rule in rules:
        assert set(SERIES.findall(rule["expr"])) <= known, rule


def test_rules_ask_for_records_that_are_made_before_them(rules: list[dict[str, Any]]) -> None:
    made: set[str] = set()
    for rule in rules:
        assert set(RECORDED.findall(rule["expr"])) <= made, rule
        made |= {rule["record"]} if "record" in rule else set()

    assert made


def test_no_two_alerts_share_a_name_and_each_says_how_grave_it_is(rules: list[dict[str, Any]]) -> None:
    found = [rule for rule in rules if "alert" in rule]

    assert len(alerts(rules)) == len(found)
    assert {rule["labels"]["severity"] for rule in found} == {"warning", "critical"}


def test_every_alert_is_tested_to_fire_and_to_be_quiet(deploy: Path, rules: list[dict[str, Any]]) -> None:
    tests = yaml.safe_load((deploy / "prometheus" / "tests" / "alerts.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = Counter(case["alertname"] for case in cases if case["exp_alerts"])
    is_quiet = Counter(case["alertname"] for case in cases if not case["exp_alerts"])

    assert fires.keys() == alerts(rules)
    assert is_quiet.keys() == alerts(rules)


@pytest.mark.parametrize(
    "alert",
    [
        "TrainyardJobStuck",
        "TrainyardQueueOld",
        "TrainyardWorkerLost",
        "TrainyardCheckpointsFail",
        "TrainyardDeploymentNotReady",
        "TrainyardTorchServeRestarts",
        "TrainyardDiskNearFull",
        "TrainyardDown",
    ],
)
def test_what_wakes_people_is_there(rules: list[dict[str, Any]], alert: str) -> None:
    assert alert in alerts(rules)
