"""Alerts ask for metrics, labels and values that the platform's code has."""

from __future__ import annotations

import inspect
import re

import pytest

from services.controller import compose, figures, loop
from services.core.states import DeploymentState, FailureReason
from services.rpc import metrics as rpc_metrics
from tests.stack.manifests import Overlay, load
from tests.stack.metric_names import known_series
from workers.outcome import Verdict

VALUES: dict[tuple[str, str], set[str]] = {
    ("trainyard_attempt_duration_seconds_count", "outcome"): {verdict.value for verdict in Verdict},
    ("trainyard_attempts_total", "reason"): {reason.value for reason in FailureReason},
    ("trainyard_workers", "state"): set(figures.WORKER_STATES),
    ("trainyard_deployments", "state"): {state.value for state in DeploymentState},
    ("trainyard_controller_ticks_total", "loop"): set(re.findall(r'Loop\("(\w+)"', inspect.getsource(compose))),
    ("trainyard_controller_ticks_total", "state"): set(re.findall(r'state = "(\w+)"', inspect.getsource(loop))),
    ("trainyard_rpc_requests_total", "code"): {code.name for code in rpc_metrics._BY_NUMBER.values()},
}
SELECTOR = re.compile(r"(trainyard_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(?:=~|=)"([^"]*)"')


@pytest.fixture(params=("staging", "prod"))
def monitored(request: pytest.FixtureRequest) -> Overlay:
    return load(request.param)


def test_alerts_ask_for_what_the_code_has(monitored: Overlay) -> None:
    known = known_series()

    for alert, expression in _alerts(monitored).items():
        for metric, matchers in SELECTOR.findall(expression):
            assert metric in known, alert
            for label, values in MATCHER.findall(matchers):
                assert label in known[metric], alert
                assert set(values.split("|")) <= VALUES[metric, label], alert


def test_there_are_alerts_for_stuck_jobs_lost_workers_and_old_queues(monitored: Overlay) -> None:
    assert {"TrainyardJobStuck", "TrainyardWorkerLost", "TrainyardQueueOld"} <= _alerts(monitored).keys()


def test_everything_that_has_metrics_is_scraped(monitored: Overlay) -> None:
    jobs = set()
    for monitor in monitored.of("ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        for name, service in monitored.of("Service").items():
            ports = {port["name"] for port in service["spec"]["ports"]}
            if wanted <= service["metadata"]["labels"].items():
                jobs |= {(name, one["port"]) for one in monitor["spec"]["endpoints"] if one["port"] in ports}

    assert jobs == {
        (name, port)
        for name, pod in monitored.pods.items()
        for port in pod.ports
        if port in ("metrics", "server-metrics")
    }


def test_the_alert_of_silence_knows_every_job(monitored: Overlay) -> None:
    (jobs,) = re.findall(r'job=~"([^"]*)"', _alerts(monitored)["TrainyardDown"])

    assert set(jobs.split("|")) >= monitored.long_running.keys()


def _alerts(overlay: Overlay) -> dict[str, str]:
    (rules,) = overlay.of("PrometheusRule").values()
    found = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule["expr"] for rule in found if "alert" in rule}
