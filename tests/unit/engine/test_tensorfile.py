from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from services.core.errors import IntegrityError
from workers.engine.errors import StateUnsupported
from workers.engine.tensorfile import read_tensors, write_tensors

TENSORS = {
    "weight": torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
    "transposed": torch.randn(7, 3).t(),
    "half": torch.randn(3).to(torch.bfloat16),
    "sixteen": torch.randn(3).to(torch.float16),
    "flags": torch.tensor([True, False, True]),
    "count": torch.tensor(12),
    "empty": torch.zeros(0, 4),
    "double": torch.randn(2, dtype=torch.float64),
    "bytes": torch.arange(5, dtype=torch.uint8),
}


def test_the_library_reads_back_every_tensor(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", TENSORS)

    found = load_file(tmp_path / "a")

    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_equal_tensors_give_equal_bytes_whatever_their_order_and_layout(tmp_path: Path) -> None:
    first = write_tensors(tmp_path / "a", TENSORS)
    plain = {name: tensor.contiguous() for name, tensor in reversed(TENSORS.items())}

    second = write_tensors(tmp_path / "b", plain)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert first.sha256 == second.sha256


def test_the_digest_made_on_the_way_is_that_of_the_file(tmp_path: Path) -> None:
    digest = write_tensors(tmp_path / "a", {"large": torch.randn(700_000)})

    data = (tmp_path / "a").read_bytes()
    assert (digest.size_bytes, digest.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    write_tensors(tmp_path / "a", TENSORS)
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:keep])

    with pytest.raises(IntegrityError):
        read_tensors(tmp_path / "b")


def test_a_type_that_files_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateUnsupported, match="complex"):
        write_tensors(tmp_path / "a", {"spectrum": torch.zeros(2, dtype=torch.complex64)})
