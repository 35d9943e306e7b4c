"""Everything a worker tells Prometheus, declared once. Labels are bounded: never a job, an attempt or a path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psutil
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

from workers.outcome import Verdict

ATTEMPTS = Counter("trainyard_attempts_total", "Attempts ended, by how.", ("family", "outcome", "reason"))
ATTEMPT_SECONDS = Histogram(
    "trainyard_attempt_duration_seconds",
    "Wall time of one attempt, by how it ended.",
    ("family", "outcome"),
    buckets=(1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600),
)
CLAIM_SECONDS = Histogram(
    "trainyard_attempt_start_seconds",
    "From the claim of an attempt to its first training step.",
    ("family",),
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60, 300),
)
STEP_SECONDS = Histogram(
    "trainyard_step_seconds",
    "Time of one training step, at the steps that are logged.",
    ("family",),
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
SAMPLES_PER_SECOND = Gauge("trainyard_samples_per_second", "Training speed of the attempts running here.", ("family",))
TRAINER_MEMORY = Gauge("trainyard_trainer_memory_bytes", "Memory of trainers, as they report it.", ("family", "kind"))
CHECKPOINT_SECONDS = Histogram(
    "trainyard_checkpoint_commit_seconds",
    "From the start of a checkpoint's upload to its commit.",
    ("family",),
    buckets=(0.05, 0.1, 0.5, 1, 5, 15, 60, 300),
)
CHECKPOINT_STALL_SECONDS = Histogram(
    "trainyard_checkpoint_stall_seconds",
    "How long taking a checkpoint held up training.",
    ("family",),
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2, 10),
)
CHECKPOINT_FAILURES = Counter(
    "trainyard_checkpoint_failures_total", "Tries to store a checkpoint that did not succeed.", ("family",)
)
CHECKPOINT_BYTES = Counter("trainyard_checkpoint_bytes_total", "Bytes of committed checkpoints.", ("family",))
EVENTS = Counter("trainyard_events_total", "Messages of trainers, by kind.", ("kind",))
BUSY_SLOTS = Gauge("trainyard_busy_slots", "Attempts running on this worker.")
INFO = Gauge("trainyard_worker_info", "1, under the name by which the platform knows this worker.", ("worker",))
CACHE_LOOKUPS = Counter("trainyard_dataset_cache_lookups_total", "Datasets asked for, by what was found.", ("result",))
ARCHIVE_SECONDS = Histogram(
    "trainyard_archive_build_seconds",
    "Time to build one servable archive, by how it ended.",
    ("outcome",),
    buckets=(1, 5, 15, 30, 60, 120, 300, 900),
)


def expect_attempt(family: str) -> None:
    """Show the counters of a family's attempts before the first one ends: a series that begins at 1 never grew."""
    for verdict in Verdict:
        ATTEMPT_SECONDS.labels(family, verdict.value)


def expect_work(families: Iterable[str]) -> None:
    """Show counters whose first figure may come before the next scrape, or is the only one for days."""
    for family in families:
        CLAIM_SECONDS.labels(family)
    for verdict in Verdict:
        ARCHIVE_SECONDS.labels(verdict.value)


def observe_step(family: str, fields: Mapping[str, Any]) -> None:
    """Take the figures of one step frame."""
    if fields.get("step_ms"):
        STEP_SECONDS.labels(family).observe(fields["step_ms"] / 1000)
    if fields.get("samples_s"):
        SAMPLES_PER_SECOND.labels(family).set(fields["samples_s"])
    for name, size_bytes in (fields.get("mem") or {}).items():
        if size_bytes is not None and name in _MEMORY_KINDS:
            TRAINER_MEMORY.labels(family, _MEMORY_KINDS[name]).set(size_bytes)


def forget_speed(family: str) -> None:
    """Drop the gauges of a family when its attempt ends: the last value would look like a running one."""
    SAMPLES_PER_SECOND.labels(family).set(0)
    for kind in _MEMORY_KINDS.values():
        TRAINER_MEMORY.labels(family, kind).set(0)


_MEMORY_KINDS = {
    "alloc_bytes": "allocated",
    "peak_bytes": "peak",
    "static_estimate_bytes": "static_estimate",
    "rss_bytes": "resident",
}


class MachineCollector(Collector):
    """Memory of this worker with all its processes, and of its GPUs, read when Prometheus asks."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("trainyard_worker_memory_bytes", "Resident memory of the worker and its processes.")
        family.add_metric([], _resident_bytes())
        yield family
        gpu = GaugeMetricFamily("trainyard_gpu_memory_bytes", "Memory of each GPU.", labels=("device", "kind"))
        for device, used, total in _gpu_memory():
            gpu.add_metric([device, "used"], used)
            gpu.add_metric([device, "total"], total)
        yield gpu


def register_machine(registry: CollectorRegistry = REGISTRY) -> None:
    registry.register(MachineCollector())


def _resident_bytes() -> int:
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def _gpu_memory() -> Iterator[tuple[str, int, int]]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
            yield str(index), int(memory.used), int(memory.total)
    finally:
        pynvml.nvmlShutdown()
