import pytest
import torch
from torch import nn

from workers.families.segmentation.config import FcnModel
from workers.families.segmentation.fcn import FcnNetwork, bilinear_kernel

SMALL = FcnModel(body="small", stages=((4, 1),) * 5, hidden=8)


@pytest.mark.parametrize("variant", ["32s", "16s", "8s"])
@pytest.mark.parametrize("style", ["modern", "caffe"])
@pytest.mark.parametrize("size", [(64, 64), (50, 71), (33, 128)])
def test_scores_have_the_size_of_any_image(variant: str, style: str, size: tuple[int, int]) -> None:
    network = FcnNetwork(SMALL.model_copy(update={"variant": variant, "style": style}), 3).eval()

    with torch.no_grad():
        assert network(torch.rand(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_the_kernel_interpolates_a_ramp_exactly(factor: int) -> None:
    up = nn.ConvTranspose2d(1, 1, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    with torch.no_grad():
        up.weight[0, 0] = bilinear_kernel(2 * factor)
        ramp = torch.arange(6.0).expand(1, 1, 6, 6)
        grown = up(ramp)[0, 0]

    middle = slice(factor, -factor)
    steps = grown[middle, middle].diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / factor))


def test_the_paper_s_network_has_its_size() -> None:
    with torch.device("meta"):
        network = FcnNetwork(FcnModel(style="caffe"), 21)

    body, hidden = 14_714_688, 512 * 49 * 4096 + 4096 + 4096 * 4096 + 4096
    scores = sum(channels * 21 + 21 for channels in (4096, 512, 256))
    upsampling = 21 * 21 * (4 * 4 + 4 * 4 + 16 * 16)
    assert sum(parameter.numel() for parameter in network.parameters()) == body + hidden + scores + upsampling


def test_a_skip_adds_what_the_finer_map_scores() -> None:
    network = FcnNetwork(SMALL, 3).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        for skip in network.skips:
            assert isinstance(skip, nn.Conv2d)
            skip.weight.zero_()
        assert not torch.allclose(network(images), before)


def identity_over(network: FcnNetwork, source: nn.Module) -> None:
    """Make every layer hand on its first channel as it is, and `source` the only map that scores."""
    for stage in network.stages:
        assert isinstance(stage, nn.Sequential)
        # The mean of a ramp lies at the middle of what a pool sees, its maximum does not.
        stage[-1] = nn.AvgPool2d(2, ceil_mode=True)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                middle = module.kernel_size[0] // 2
                module.weight.zero_()
                module.weight[0, 0, middle, middle] = 1
        for scorer in (network.score, *network.skips):
            if scorer is not source:
                scorer.weight.zero_()


@pytest.mark.parametrize("style", ["modern", "caffe"])
@pytest.mark.parametrize(("variant", "place"), [("32s", -1), ("16s", -1), ("16s", 0), ("8s", -1), ("8s", 0), ("8s", 1)])
def test_every_map_s_scores_lie_over_the_pixels_they_are_of(variant: str, place: int, style: str) -> None:
    network = FcnNetwork(SMALL.model_copy(update={"variant": variant, "style": style}), 3).eval()
    identity_over(network, network.score if place < 0 else network.skips[place])
    height, width = 256, 280
    ramp = torch.arange(height).float()[:, None] + 2 * torch.arange(width).float()

    with torch.no_grad():
        scores = network(ramp.expand(1, 3, height, width))[0, 0]

    inside = (slice(96, -96), slice(96, -96))
    torch.testing.assert_close(scores[inside], ramp[inside], atol=1e-2, rtol=0)
