"""Everything an agent tells Prometheus, declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

STARTS = Counter("trainyard_torchserve_starts_total", "Starts of TorchServe by this agent.")
READY = Gauge("trainyard_deployments_ready", "Deployments that answer in this TorchServe.")
WORKER_RESTARTS = Counter(
    "trainyard_serving_worker_restarts_total", "Serving processes that TorchServe had to start again, as the agent saw."
)
