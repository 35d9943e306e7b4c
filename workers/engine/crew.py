"""The processes that train one job together: who is who, and what they tell each other.

The leader is rank 0: it alone evaluates, saves and reports. Where tensors live on GPUs, words between hosts'
memories go by a group of their own, so that nobody waits for a device to hear whether to go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from services.core.errors import PlatformError
from workers.engine.errors import is_out_of_memory

Group = Any
"""A process group of torch, which its stubs do not type."""
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

    def __init__(
        self, rank: int = 0, size: int = 1, *, words: Group | None = None, tensors: Group | None = None
    ) -> None:
        self.rank = rank
        self.size = size
        self._words = words
        self._tensors = tensors
        self._code = torch.zeros((), dtype=torch.int64)

    def __deepcopy__(self, _: Any) -> Crew:
        # A copied network belongs to the same crew.
        return self

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
            _of(self._words).broadcast(self._code, 0).wait()
        return int(self._code)

    def tell(self, document: Any) -> Any:
        """Return the leader's document, which is ready for JSON; the others' is not looked at."""
        if self.is_alone:
            return document
        body = bytearray(json.dumps(document).encode() if self.is_leader else b"")
        body.extend(bytes(self.agree(len(body)) - len(body)))
        message = torch.frombuffer(body, dtype=torch.uint8)
        with _talking():
            _of(self._words).broadcast(message, 0).wait()
        return json.loads(body)

    def copy_(self, tensor: Tensor) -> None:
        """Overwrite a tensor with the leader's."""
        if not self.is_alone:
            with _talking():
                _of(self._tensors).broadcast(tensor, 0).wait()

    def sum_(self, *tensors: Tensor) -> None:
        """Replace each tensor by the sum of all processes'."""
        if self.is_alone:
            return
        with _talking():
            for work in [_of(self._tensors).allreduce(tensor) for tensor in tensors]:
                work.wait()

    def gather(self, tensor: Tensor) -> Tensor:
        """Return all processes' tensors of this shape, stacked by rank."""
        if self.is_alone:
            return tensor[None]
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        with _talking():
            _of(self._tensors).allgather([gathered], [tensor]).wait()
        return torch.stack(gathered)


ALONE = Crew()


@contextmanager
def joined(rank: int, size: int, *, meeting: Path, device: torch.device, has_own_device: bool) -> Iterator[Crew]:
    """Join the crew that meets at a file; all its processes are on this machine.

    NCCL wants a GPU for each process; where two share one, gloo carries their tensors too. Neither becomes torch's
    default group: libraries that find one talk to it by themselves, as those that compute metrics do.
    """
    with _talking():
        store = dist.FileStore(str(meeting), size)  # type: ignore[attr-defined]
        words = _meet(dist.ProcessGroupGloo, store, "words", rank, size)
        tensors = words
        if device.type == "cuda" and has_own_device:
            tensors = _meet(dist.ProcessGroupNCCL, store, "tensors", rank, size)
    crew = Crew(rank, size, words=words, tensors=tensors)
    yield crew
    if tensors is not words:
        # A process that leaves takes its end of NCCL's channels along, and another may still be reading there.
        torch.cuda.synchronize(device)
        crew.agree(0)
        tensors.abort()


def _meet(kind: Callable[..., Group], store: Any, name: str, rank: int, size: int) -> Group:
    return kind(dist.PrefixStore(name, store), rank, size, PATIENCE)  # type: ignore[attr-defined]


def _of(group: Group | None) -> Group:
    assert group is not None
    return group


@contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as err:
        if is_out_of_memory(err):
            raise
        raise PeerLost(f"another process of this job is gone ({' '.join(str(err).split())[:200]})") from err
