"""Every series that the platform's processes expose, with its labels, read from the code that declares them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from services.agent import metrics as agent_metrics
from services.controller import metrics as controller_metrics
from services.core.disk import DiskCollector
from services.identity import trail
from services.rpc import metrics as rpc_metrics
from workers import metrics as worker_metrics

_MODULES: tuple[ModuleType, ...] = (agent_metrics, controller_metrics, rpc_metrics, trail, worker_metrics)
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def known_series() -> dict[str, set[str]]:
    """Return the labels of every series by its name."""
    known: dict[str, set[str]] = {}
    for module in _MODULES:
        for one in vars(module).values():
            if isinstance(one, MetricWrapperBase):
                (metric,) = one.describe()
                known |= _series(metric, set(one._labelnames))
    for collector in (DiskCollector(Path("/")), worker_metrics.MachineCollector()):
        for metric in collector.collect():
            known |= _series(metric, set(metric._labelnames))  # type: ignore[attr-defined]
    return known


def _series(metric: Metric, labels: set[str]) -> dict[str, set[str]]:
    bucket = {"le"} if metric.type == "histogram" else set()
    return {
        metric.name + suffix: labels | (bucket if suffix == "_bucket" else set()) for suffix in _SUFFIXES[metric.type]
    }
