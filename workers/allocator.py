"""How the C library hands memory to torch's tensors on CPUs.

By default glibc gives the memory of large tensors back to the kernel when they are freed, and every step pays page
faults to get it again: about 6,500 a step of YOLO v1 at batch 32 and 128 px, an eighth of its time on two cores.
Served networks pay in the same way: about 450 a photo that ResNet-18 classifies, a sixth of its time on one core.
"""

from __future__ import annotations

import ctypes

# malloc.h
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
TRAINING_BYTES = 2**30
SERVING_BYTES = 2**28
"""Less than a trainer's: a host runs several serving processes, and each keeps it for as long as it lives."""
_OLD_LIMIT = 32 * 2**20
"""What older glibc takes at most for the size from which a block is mapped by itself."""


def keep_freed_memory(limit: int) -> bool:
    """Let this process, and those it forks, keep up to `limit` bytes of freed memory for its next tensors.

    Blocks larger than that still go back at once. Return whether the C library is one that can be told.
    """
    try:
        tell = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):
        return False
    is_kept = bool(tell(_MMAP_THRESHOLD, limit)) or bool(tell(_MMAP_THRESHOLD, _OLD_LIMIT))
    return is_kept and bool(tell(_TRIM_THRESHOLD, limit))
