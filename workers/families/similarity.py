"""Structural similarity of pictures (Wang et al. 2004), as torchmetrics computes it."""

from __future__ import annotations

from torch import Tensor


def structural_similarity(one: Tensor, other: Tensor, *, data_range: float) -> Tensor:
    """Return the similarity of each pair of pictures (N, C, H, W), of which each side has more than 5 pixels, (N,).

    `data_range` is how far the largest value of a pixel is from the smallest.
    """
    # Brings scipy, seconds of imports: for those who judge pictures.
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(one.double(), other.double(), data_range=data_range, reduction="none")
    assert isinstance(found, Tensor)
    return found.reshape(len(one))
