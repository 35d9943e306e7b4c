"""Settings of the whole process while it trains: thread share and deterministic kernels; put back after."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def process_settings(*, threads: int, deterministic: bool) -> Iterator[None]:
    """Give torch its share of the cores and choose its kernels; before CUDA is first used."""
    # cuBLAS reads this once, when its first handle is made
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    try:
        _apply(threads, deterministic, not deterministic, deterministic, False)
        yield
    finally:
        _apply(*before)


def _apply(threads: int, algorithms: bool, benchmark: bool, cudnn: bool, fill: bool) -> None:
    torch.set_num_threads(threads)
    # As `use_deterministic_algorithms`, which would import the compiler to tell it; one that comes later asks
    # (`workers.imports`).
    torch.set_deterministic_debug_mode("error" if algorithms else "default")
    if (compiler := sys.modules.get("torch._inductor.config")) is not None:
        compiler.deterministic = algorithms  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.deterministic = cudnn
    # Filling every new tensor finds bugs, not answers, and costs a pass over memory.
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
