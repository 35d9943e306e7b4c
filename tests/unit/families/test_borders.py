"""Borders against torch's own, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workers.families.borders import Mirrored, mirrored, repeated


@pytest.mark.parametrize("border", [1, 4])
@pytest.mark.parametrize(("pad", "mode"), [(mirrored, "reflect"), (repeated, "replicate")])
def test_borders_and_their_gradients_are_torch_s(pad: Callable[[Tensor, int], Tensor], mode: str, border: int) -> None:
    images = torch.randn(2, 3, 7, 9, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 7 + 2 * border, 9 + 2 * border, dtype=torch.float64)

    ours = pad(images, border)
    theirs = functional.pad(images, (border,) * 4, mode=mode)

    assert torch.equal(ours, theirs)
    found, expected = (torch.autograd.grad((one * weights).sum(), images)[0] for one in (ours, theirs))
    torch.testing.assert_close(found, expected)


def test_the_layer_does_what_the_function_does() -> None:
    images = torch.randn(1, 2, 5, 5)

    assert torch.equal(Mirrored(2)(images), mirrored(images, 2))
