"""Wrong kernels are named, right ones are not; FCN does without those that were found wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.builders.kernels import WrongGradients
from workers.engine.kernels import compared
from workers.families.segmentation.config import FcnModel
from workers.families.segmentation.fcn import FcnNetwork


def step(network: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network(images).float().square().mean()
    loss.backward()
    return loss.detach()


def test_right_kernels_are_not_named() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 4))
    images = torch.randn(4, 3, 8, 8)

    with compared() as wrong:
        loss = step(network, images)

    assert wrong == []
    assert torch.equal(loss, step(network, images)), "a comparison changes nothing"


def test_a_wrong_kernel_is_named_with_its_shapes() -> None:
    with WrongGradients(), compared() as wrong:
        step(nn.Conv2d(3, 8, 3), torch.randn(4, 3, 8, 8))

    assert wrong == ["aten.convolution_backward.default of (4, 8, 6, 6) (4, 3, 8, 8) (8, 3, 3, 3)"]


def test_gradients_through_the_upsampling_of_fcn_are_those_of_fp32() -> None:
    torch.manual_seed(0)
    upsampling = FcnNetwork(FcnModel(body="small"), num_classes=4).last
    scores = torch.randn(2, 4, 8, 8)
    found, weights = [], []
    for is_enabled in (False, True):
        given = scores.clone().requires_grad_()
        with WrongGradients(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_enabled):
            upsampling(given.bfloat16() if is_enabled else given).float().square().sum().backward()
        assert given.grad is not None
        found.append(given.grad)

        weights.append(upsampling.weight.grad)
        upsampling.weight.grad = None

    exact, ours = found
    # On any machine: no bf16 kernel has a part in them.
    assert (weights[1] - weights[0]).norm() < 0.02 * weights[0].norm()
    assert (ours - exact).norm() < 0.02 * exact.norm()
