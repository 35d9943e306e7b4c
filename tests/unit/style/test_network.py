"""The transform network."""

from __future__ import annotations

import pytest
import torch

from workers.families.style.config import FastModel
from workers.families.style.network import TransformNetwork


def test_it_has_the_reference_s_parameters_less_the_biases_that_normalisation_takes_away() -> None:
    network = TransformNetwork(FastModel())

    # pytorch/examples: 1,679,235; of fifteen normalised convolutions 1,600 biases.
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_679_235 - 1_600


@pytest.mark.parametrize("size", [(16, 16), (20, 48), (64, 32)])
def test_a_picture_of_any_size_keeps_it(size: tuple[int, int]) -> None:
    network = TransformNetwork(FastModel(width=4, residual_blocks=1)).eval()

    with torch.no_grad():
        assert network(torch.randn(2, 3, *size)).shape == (2, 3, *size)
