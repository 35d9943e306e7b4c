"""What this machine's processor does in hardware: what a probe need not try, and what an archive was built for."""

from __future__ import annotations

import torch

_ISA_PREFIXES = ("avx", "amx", "fma", "sve", "asimd", "bf16")
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Of x86, and of ARM, where the extension has just that name."""
_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def instruction_sets() -> tuple[str, ...]:
    """Return the vector extensions of this processor, by the names torch gives them."""
    capabilities = torch.cpu.get_capabilities()
    return tuple(sorted(name for name, has in capabilities.items() if has is True and name.startswith(_ISA_PREFIXES)))


def has_fast_bf16() -> bool:
    """Return whether this processor computes bf16 in hardware; elsewhere it is emulated and slower than fp32."""
    return not _BF16.isdisjoint(instruction_sets())


def has_fast_int8() -> bool:
    """Return whether this processor multiplies int8 into int32 sums; without it products of int8 can overflow."""
    return not _INT8.isdisjoint(instruction_sets())
