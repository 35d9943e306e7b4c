"""The global random generators of python, numpy and torch: captured, restored, guarded.

A state is JSON-ready, so that a checkpoint holds it without pickling.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed every global generator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture(*, include_cuda: bool = True) -> dict[str, Any]:
    """Return the state of every global generator."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, base64.b64encode(np.asarray(keys).tobytes()).decode(), position, has_gauss, cached],
        "torch": _encode(torch.get_rng_state()),
    }
    if include_cuda and _uses_cuda():
        state["cuda"] = [_encode(device) for device in torch.cuda.get_rng_state_all()]
    return state


def restore(state: Mapping[str, Any]) -> None:
    """Put back what `capture` returned; generators of devices that are not here are left out."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.frombuffer(base64.b64decode(keys), dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_decode(state["torch"]))
    if _uses_cuda():
        for device, encoded in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(_decode(encoded), device)


@contextmanager
def guarded(seed: int) -> Iterator[None]:
    """Run something with generators of its own; training goes on as if it had not happened."""
    state = capture()
    try:
        seed_all(seed)
        yield
    finally:
        restore(state)


def _encode(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decode(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
