"""What this machine's processor does in hardware: what a probe need not try, and what an archive was built for."""

from __future__ import annotations

import torch

_ISA_PREFIXES = ("avx", "amx", "fma", "sve", "asimd", "bf16")
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Of x86, and of ARM, where the extension has just that name."""
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""They add products of int8 up in 32 bits."""


def instruction_sets() -> tuple[str, ...]:
    """Return the vector extensions of this processor, by the names torch gives them."""
    capabilities = torch.cpu.get_capabilities()
    return tuple(sorted(name for name, has in capabilities.items() if has is True and name.startswith(_ISA_PREFIXES)))


def has_fast_bf16() -> bool:
    """Return whether this processor computes bf16 in hardware; elsewhere it is emulated and slower than fp32."""
    return not _BF16.isdisjoint(instruction_sets())


def has_fast_int8() -> bool:
    """Return whether this processor multiplies int8 faster than fp32: x86 with AVX2 or more."""
    return "avx2" in instruction_sets() or not is_int8_saturating()


def is_int8_saturating() -> bool:
    """Return whether two neighbouring products of int8 are added in 16 bits, which full ranges overflow."""
    return _VNNI.isdisjoint(instruction_sets())
