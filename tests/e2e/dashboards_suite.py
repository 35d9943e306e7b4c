"""Every query of every dashboard, asked of a Prometheus that scrapes a platform on which a job ran."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from trainyard.v1 import deployment_pb2

from services.client.sdk import Trainyard
from tests.e2e.conftest import Trained
from tests.e2e.endpoints import Platform
from tests.stack.dashboards import BOARDS, queries
from tests.stack.platform import wait_until
from tests.stack.prometheus import Prometheus

LABEL_VALUES = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")
INTERVALS = {"__rate_interval": "5m", "__range": "1h"}
WINDOW_SECONDS = 8 * 60


@pytest.fixture(scope="module")
def prometheus(
    client: Trainyard,
    platform: Platform,
    trained: Trained,
    deployment: deployment_pb2.Deployment,
    picture: bytes,
) -> Prometheus:
    """Return a Prometheus that has seen a job and predictions, twice at least: rates need two scrapes."""
    client.predict(deployment.name, [picture])
    seen = 'changes(ts_inference_requests_total{model_name="default--e2e"}[5m]) > 0'
    while_waiting: Iterator[object] = iter(lambda: client.predict(deployment.name, [picture]), None)
    wait_until(
        lambda: bool(next(while_waiting)) and bool(platform.prometheus.query(seen)),
        what="predictions in two scrapes",
        limit_seconds=platform.patience_seconds,
    )
    return platform.prometheus


@pytest.mark.parametrize("board", sorted(BOARDS))
def test_every_query_returns_data(prometheus: Prometheus, board: str) -> None:
    chosen = choose(prometheus, BOARDS[board])

    empty = {}
    for title, expression in queries(BOARDS[board]):
        filled = fill(expression, chosen)
        if not any(math.isfinite(sample.values[0]) for sample in prometheus.query(filled)):
            empty[title] = filled

    assert not empty


def choose(prometheus: Prometheus, board: dict[str, Any]) -> dict[str, str]:
    """Return the value that Grafana would show first for every variable, in their order."""
    chosen = dict(INTERVALS)
    for variable in board["templating"]["list"]:
        if variable["type"] != "query":
            continue
        asked = LABEL_VALUES.fullmatch(variable["query"]["query"])
        assert asked is not None, variable
        samples = prometheus.query(fill(asked["series"], chosen))
        values = sorted({sample.labels[asked["label"]] for sample in samples if asked["label"] in sample.labels})
        chosen[variable["name"]] = variable["allValue"] if variable["includeAll"] else values[0]
    return chosen


def fill(expression: str, chosen: dict[str, str]) -> str:
    """Put the values of variables into an expression, as Grafana does."""
    for name in sorted(chosen, key=len, reverse=True):
        expression = re.sub(rf"\$\{{?{name}\b\}}?", chosen[name], expression)
    assert "$" not in expression, expression
    return expression
