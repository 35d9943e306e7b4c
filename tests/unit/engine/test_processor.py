from __future__ import annotations

import pytest
import torch

from workers.engine.processor import has_fast_bf16, has_fast_int8, instruction_sets, is_int8_saturating

X86 = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False, "num_sockets": 1}


@pytest.mark.parametrize(
    ("capabilities", "has_bf16", "has_int8"),
    [
        pytest.param(X86, False, True, id="AVX2 alone"),
        pytest.param(X86 | {"avx2": False}, False, False, id="x86 of before"),
        pytest.param(X86 | {"avx512_bf16": True, "avx512_vnni": True}, True, True, id="AVX-512 with BF16"),
        pytest.param(X86 | {"amx_bf16": True}, True, True, id="AMX"),
        pytest.param({"architecture": "aarch64", "neon": True, "bf16": True}, True, False, id="ARM with BF16"),
        pytest.param({"architecture": "aarch64", "neon": True, "bf16": False}, False, False, id="ARM without"),
    ],
)
def test_low_precision_is_fast_where_there_are_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], has_bf16: bool, has_int8: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    assert (has_fast_bf16(), has_fast_int8()) == (has_bf16, has_int8)


def test_instruction_sets_are_those_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: X86)

    assert instruction_sets() == ("avx2",)


@pytest.mark.parametrize(
    ("instruction", "is_saturating"),
    [("avx512_vnni", False), ("avx_vnni", False), ("amx_int8", False), ("avx512_bf16", True)],
)
def test_int8_saturates_unless_products_are_added_in_32_bits(
    monkeypatch: pytest.MonkeyPatch, instruction: str, is_saturating: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: X86 | {instruction: True})

    assert is_int8_saturating() is is_saturating
