"""Room on the disk that a process writes to, as Prometheus sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

FREE = "trainyard_disk_free_bytes"
SIZE = "trainyard_disk_size_bytes"


class DiskCollector(Collector):
    """The disk under a directory, read when Prometheus asks; nothing while the disk cannot be read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        size = GaugeMetricFamily(SIZE, "Size of the disk this process writes to.")
        free = GaugeMetricFamily(FREE, "What is free there for this process.")
        try:
            usage = shutil.disk_usage(self._existing())
        except OSError:
            pass
        else:
            size.add_metric([], usage.total)
            free.add_metric([], usage.free)
        yield size
        yield free

    def _existing(self) -> Path:
        """Return the directory, or the nearest one above that is there already."""
        return next(path for path in (self._directory, *self._directory.parents) if path.exists())


def register_disk(directory: Path, registry: CollectorRegistry = REGISTRY) -> None:
    """Report the disk under `directory` from now on; once a process."""
    registry.register(DiskCollector(directory))
