"""A state directory as a running platform keeps it, without the platform."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.up import endpoints
from services.up.endpoints import Endpoints, TorchServePorts
from services.up.lock import hold_lock


def write_endpoints(state_dir: Path, address: str) -> None:
    """Write what a platform of this process would say; one that was killed leaves it behind."""
    ports = TorchServePorts(inference=1, management=2, metrics=3, grpc=4, grpc_management=5)
    endpoints.write(state_dir, Endpoints(address=address, pid=os.getpid(), is_ready=True, parts={}, torchserve=ports))


@contextmanager
def platform_at(state_dir: Path, address: str) -> Iterator[None]:
    """Hold a state directory as the platform at `address` does while it runs."""
    with hold_lock(state_dir):
        write_endpoints(state_dir, address)
        yield
        endpoints.remove(state_dir)
