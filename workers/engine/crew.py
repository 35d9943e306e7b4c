"""The processes that train one job together: who is who, and what they tell each other.

The leader is rank 0: it alone evaluates, saves and reports. Where tensors live on GPUs, words between hosts'
memories go by a group of their own, so that nobody waits for a device to hear whether to go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from services.core.errors import PlatformError
from workers.engine.errors import is_out_of_memory

PATIENCE = timedelta(days=30)
"""A crew waits while its leader evaluates, however long: a dead process is noticed by its connection, a stuck one by
the supervisor."""


class PeerLost(PlatformError):
    """Another process of this job ended; what it ran into is the reason, not this."""


class Crew:
    """One process among `size`; every collective is called by all of them, in the same order.

    Raises, from everything that talks:
        PeerLost: another process ended.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, words: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._words = words
        self._code = torch.zeros((), dtype=torch.int64)

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    def agree(self, code: int) -> int:
        """Return the leader's number."""
        if self.is_alone:
            return code
        self._code.fill_(code)
        with _talking():
            dist.broadcast(self._code, src=0, group=self._words)
        return int(self._code)

    def tell(self, document: Any) -> Any:
        """Return the leader's document, which is ready for JSON; the others' is not looked at."""
        if self.is_alone:
            return document
        body = bytearray(json.dumps(document).encode() if self.is_leader else b"")
        body.extend(bytes(self.agree(len(body)) - len(body)))
        message = torch.frombuffer(body, dtype=torch.uint8)
        with _talking():
            dist.broadcast(message, src=0, group=self._words)
        return json.loads(body)

    def copy_(self, tensor: Tensor) -> None:
        """Overwrite a tensor with the leader's."""
        if not self.is_alone:
            with _talking():
                dist.broadcast(tensor, src=0)

    def sum_(self, *tensors: Tensor) -> None:
        """Replace each tensor by the sum of all processes'."""
        if self.is_alone:
            return
        with _talking():
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def gather(self, tensor: Tensor) -> Tensor:
        """Return all processes' tensors of this shape, stacked by rank."""
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        with _talking():
            dist.all_gather(gathered, tensor)
        return torch.stack(gathered)


ALONE = Crew()


@contextmanager
def joined(rank: int, size: int, *, meeting: Path, device: torch.device, has_own_device: bool) -> Iterator[Crew]:
    """Join the crew that meets at a file; all its processes are on this machine.

    NCCL wants a GPU for each process; where two share one, gloo carries their tensors too.
    """
    backend = "nccl" if device.type == "cuda" and has_own_device else "gloo"
    with _talking():
        store = dist.FileStore(str(meeting), size)
        # The device binds NCCL's communicator now: processes that guess theirs may guess the same one.
        bound = device if backend == "nccl" else None
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE, device_id=bound)
        words = dist.new_group(backend="gloo", timeout=PATIENCE) if backend == "nccl" else None
    try:
        yield Crew(rank, size, words=words)
    finally:
        dist.destroy_process_group()


@contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as err:
        if is_out_of_memory(err):
            raise
        raise PeerLost(f"another process of this job is gone ({' '.join(str(err).split())[:200]})") from err
