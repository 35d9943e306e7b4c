"""Asks every query of a dashboard of a Prometheus, as Grafana would."""

from __future__ import annotations

import math
import re
from typing import Any

from tests.stack.dashboards import queries
from tests.stack.prometheus import Prometheus

LABEL_VALUES = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")
INTERVALS = {"__rate_interval": "1m", "__range": "1h"}
SHOWN_SECONDS = 3600.0
STEP_SECONDS = 10.0


def without_data(prometheus: Prometheus, board: dict[str, Any]) -> dict[str, str]:
    """Return the queries that draw nothing, by the titles of their panels."""
    chosen = choose(prometheus, board)
    empty = {}
    for title, expression in queries(board):
        filled = fill(expression, chosen)
        # As it is drawn: what a rate over minutes showed while a job began is gone when another test has run.
        lines = prometheus.range(filled, seconds=SHOWN_SECONDS, step=STEP_SECONDS)
        if not any(math.isfinite(value) for line in lines for value in line.values):
            empty[title] = filled
    return empty


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
