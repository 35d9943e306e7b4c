"""The dashboards' JSON: what Grafana needs of it, and series, labels and variables that exist."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stack.dashboards import BOARDS, GRAFANA, panels, queries
from tests.stack.metric_names import known_series

SELECTOR = re.compile(r"\b(trainyard_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(?:=~|!=|=)"')
VARIABLE = re.compile(r"\$\{?(\w+)\}?")
ADDED_BY_PROMETHEUS = {"namespace", "job", "instance", "pod"}
ADDED_BY_GRAFANA = {"__rate_interval", "__range"}


@pytest.fixture(params=sorted(BOARDS))
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return BOARDS[request.param]


def test_there_are_the_fleet_and_one_job() -> None:
    assert set(BOARDS) == {"fleet", "job"}
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)


def test_grafana_can_load_it(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in panels(board)]

    assert board["schemaVersion"] >= 36
    assert board.get("id") is None
    assert board["title"]
    assert len(ids) == len(set(ids))
    assert {panel["type"] for panel in panels(board)} <= {"row", "stat", "text", "timeseries"}


def test_every_panel_asks_the_chosen_prometheus_and_says_what_it_shows(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] in ("row", "text"):
            continue
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_lie_side_by_side(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in panels(board)]

    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        is_apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert is_apart, (one, other)


def test_queries_ask_for_series_and_labels_that_the_code_exposes(board: dict[str, Any]) -> None:
    known = known_series()

    for title, expression in (*queries(board), *((one["name"], one["definition"]) for one in asked(board))):
        for name, matchers in SELECTOR.findall(expression):
            assert name in known, title
            assert set(MATCHER.findall(matchers)) <= known[name] | ADDED_BY_PROMETHEUS, title


def test_queries_use_declared_variables_and_every_variable_is_used(board: dict[str, Any]) -> None:
    declared = {variable["name"] for variable in board["templating"]["list"]}
    texts = [*(expression for _, expression in queries(board)), *(one["definition"] for one in asked(board))]
    used = {name for text in texts for name in VARIABLE.findall(text)} - ADDED_BY_GRAFANA

    assert used | {"datasource"} == declared


def test_what_queries_take_from_rules_is_recorded(board: dict[str, Any]) -> None:
    rules = yaml.safe_load((GRAFANA.parent / "prometheus" / "rules" / "trainyard.yml").read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}

    named = {name for _, expression in queries(board) for name in re.findall(r"trainyard:\w+:\w+", expression)}

    assert named <= recorded


def test_links_lead_to_dashboards_that_are_there(board: dict[str, Any]) -> None:
    paths = {f"/d/{one['uid']}" for one in BOARDS.values()}

    assert {link["url"] for link in board["links"]} <= paths


def test_the_provisioning_names_a_prometheus_and_the_folder_of_dashboards() -> None:
    def load(name: str) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load((GRAFANA / "provisioning" / name).read_text())
        return document

    (source,) = load("datasources/prometheus.yml")["datasources"]
    (provider,) = load("dashboards/trainyard.yml")["providers"]
    config = yaml.safe_load((GRAFANA.parent / "prometheus" / "prometheus.yml").read_text())

    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert Path(provider["options"]["path"]).name == "dashboards"


def asked(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [variable for variable in board["templating"]["list"] if variable["type"] == "query"]
