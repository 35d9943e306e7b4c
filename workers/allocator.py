"""How the C library hands memory to torch's tensors on CPUs.

By default glibc gives the memory of large tensors back to the kernel when they are freed, and every step pays page
faults to get it again: about 6,500 a step of YOLO v1 at batch 32 and 128 px, an eighth of its time on two cores.
"""

from __future__ import annotations

import ctypes

# malloc.h
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_GIB = 2**30
_OLD_LIMIT = 32 * 2**20
"""What older glibc takes at most for the size from which a block is mapped by itself."""


def keep_freed_memory() -> bool:
    """Let this process, and those it forks, keep up to a GiB of freed memory for its next tensors.

    Blocks larger than that still go back at once. Return whether the C library is one that can be told.
    """
    try:
        tell = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):
        return False
    is_kept = bool(tell(_MMAP_THRESHOLD, _GIB)) or bool(tell(_MMAP_THRESHOLD, _OLD_LIMIT))
    return is_kept and bool(tell(_TRIM_THRESHOLD, _GIB))
