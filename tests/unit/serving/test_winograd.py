from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.serving.flops import flops_of
from workers.serving.winograd import Winograd, with_winograd

pytestmark = pytest.mark.filterwarnings("ignore")


class Block(nn.Module):
    """A residual block with norms that have seen data, as a trained network's."""

    def __init__(self, channels: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norms = nn.ModuleList([trained_norm(channels), trained_norm(channels)])

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(inner)) + x)


def trained_norm(channels: int, **options: bool) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, **options)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return norm


def filtered(graph: nn.Module) -> list[str]:
    return [name.removeprefix("winograd_") for name, part in graph.named_children() if isinstance(part, Winograd)]


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    ("shape", "padding", "dilation"),
    [
        ((2, 3, 13, 17), (1, 1), 1),
        ((1, 4, 9, 8), (0, 1), 1),
        ((1, 4, 15, 11), (2, 2), 2),
        ((2, 4, 14, 7), (3, 4), 4),
        ((1, 2, 3, 3), (0, 0), 1),
    ],
)
def test_a_filtered_convolution_is_the_direct_one(size, shape, padding, dilation):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(5, shape[1], 3, 3), torch.randn(5), torch.randn(shape)
    exact = functional.conv2d(x.double(), weight.double(), bias.double(), padding=padding, dilation=dilation)

    y = Winograd(weight, bias, size=size, padding=padding, dilation=dilation)(x)

    assert_same(y, exact.float())


@pytest.mark.parametrize(("size", "times_fewer"), [(2, 9 / 4), (4, 4)])
def test_it_multiplies_less(size, times_fewer):
    convolution, x = nn.Conv2d(16, 32, 3, padding=1), torch.zeros(1, 16, 24, 24)
    assert convolution.bias is not None

    minimal = Winograd(convolution.weight, convolution.bias, size=size, padding=(1, 1), dilation=1)

    assert flops_of(convolution, x) == times_fewer * flops_of(minimal, x)


def test_a_network_answers_as_before_with_its_norms_folded_in():
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 48, 7, stride=2, padding=3)
    network = nn.Sequential(stem, Block(48), Block(48, dilation=2), nn.Conv2d(48, 64, 3)).eval().requires_grad_(False)
    x = torch.randn(1, 3, 64, 64)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    graph, gain = with_winograd(network, x)

    assert_same(graph(x), network(x))
    assert filtered(graph) == ["conv2d_1", "conv2d_2", "conv2d_3", "conv2d_4", "conv2d_5"]
    assert isinstance(graph, torch.fx.GraphModule)
    assert not any("batch_norm" in str(node.target) for node in graph.graph.nodes)
    assert 1.3 < gain < 4
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_other_convolutions_stay_as_they_are():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=4),
        nn.Conv2d(64, 64, 3, padding=(1, 2), dilation=(1, 2)),
        nn.Conv2d(64, 64, 5, padding=2),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Conv2d(64, 2, 3, padding=1),
    )
    network, x = network.eval().requires_grad_(False), torch.randn(1, 64, 64, 64)

    graph, gain = with_winograd(network, x)

    assert (filtered(graph), gain) == ([], 1.0)
    assert_same(graph(x), network(x))


def test_maps_that_are_too_small_for_tiles_stay_as_they_are():
    convolution = nn.Conv2d(256, 256, 3, padding=1).eval().requires_grad_(False)

    small, _ = with_winograd(convolution, torch.randn(1, 256, 4, 4))
    large, _ = with_winograd(convolution, torch.randn(1, 256, 28, 28))

    assert (filtered(small), filtered(large)) == ([], ["conv2d"])


def test_a_dilation_that_leaves_a_grid_no_neighbours_stays_as_it_is():
    wide = nn.Conv2d(64, 64, 3, padding=16, dilation=16).eval().requires_grad_(False)

    graph, _ = with_winograd(wide, torch.randn(1, 64, 16, 16))

    assert filtered(graph) == []


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(48, 48, 3, padding=1), trained_norm(48)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        return torch.relu(y) + self.norm(y)


def of_the_batch() -> nn.Module:
    return nn.Sequential(nn.Conv2d(48, 48, 3, padding=1), trained_norm(48, track_running_stats=False))


def without_affine() -> nn.Module:
    return nn.Sequential(nn.Conv2d(48, 48, 3, padding=1, bias=False), trained_norm(48, affine=False))


class Conditional(nn.Module):
    """Scales its norm by what the input says, as generators of classes do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(48, 48, 3, padding=1), trained_norm(48)

    def forward(self, x: Tensor) -> Tensor:
        y, norm = self.convolution(x), self.norm
        scale = norm.weight * (1 + x.amax())
        return functional.batch_norm(y, norm.running_mean, norm.running_var, scale, norm.bias)


@pytest.mark.parametrize(
    ("make", "is_folded"),
    [(ReadTwice, False), (of_the_batch, False), (Conditional, False), (without_affine, True)],
    ids=["read twice", "of the batch", "conditional", "without affine"],
)
def test_a_norm_is_folded_only_where_nothing_else_reads_the_convolution_and_it_has_statistics(make, is_folded):
    torch.manual_seed(0)
    network, x = make().eval().requires_grad_(False), torch.randn(1, 48, 32, 32)

    graph, _ = with_winograd(network, x)

    assert_same(graph(x), network(x))
    assert len(filtered(graph)) == 1
    assert isinstance(graph, torch.fx.GraphModule)
    assert any("batch_norm" in str(node.target) for node in graph.graph.nodes) is not is_folded


class Modulated(nn.Module):
    """Its filters or biases are computed from the input, as StyleGAN2's filters are."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(48, 48, 3, 3)), nn.Parameter(torch.randn(48))
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        style = 1 + x.amax()
        if self.part == "filters":
            return functional.conv2d(x, self.weight * style, self.bias, padding=1)
        return functional.conv2d(x, self.weight, self.bias * style, padding=1)


@pytest.mark.parametrize("part", ["filters", "bias"])
def test_what_the_network_computes_stays_as_it_is(part):
    torch.manual_seed(0)
    network, x = Modulated(part).eval().requires_grad_(False), torch.randn(1, 48, 32, 32)

    graph, gain = with_winograd(network, x)

    assert (filtered(graph), gain) == ([], 1.0)
    assert_same(graph(x), network(x))
