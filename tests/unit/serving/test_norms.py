from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from workers.serving.norms import with_folded_norms

pytestmark = pytest.mark.filterwarnings("ignore")


def trained_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_(0, 0.2)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def up(source: int, target: int, **options: int | bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(source, target, 4, stride=2, padding=1, **options)  # type: ignore[arg-type]


def norms_in(module: nn.Module) -> int:
    assert isinstance(module, torch.fx.GraphModule)
    return sum(node.target is torch.ops.aten.batch_norm.default for node in module.graph.nodes)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("width", [6, 4])
def test_norms_behind_transposed_convolutions_are_folded_into_them(has_bias, width):
    torch.manual_seed(0)
    network = nn.Sequential(up(width, 6, bias=has_bias), trained_norm(6), nn.ReLU(), up(6, 3), nn.Tanh()).eval()
    x = torch.randn(1, width, 5, 4)

    folded = with_folded_norms(network, x)

    assert norms_in(folded) == 0
    assert_same(folded(x), network(x))


def test_a_graph_that_was_made_before_is_folded_as_well():
    torch.manual_seed(0)
    network, x = nn.Sequential(up(4, 4), trained_norm(4)).eval(), torch.randn(1, 4, 5, 5)
    graph = torch.export.export(network, (x,)).module()

    folded = with_folded_norms(graph, x)

    assert norms_in(folded) == 0
    assert_same(folded(x), network(x))


class Shared(nn.Module):
    """Reads what the convolution drew past its norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = up(4, 4), trained_norm(4)

    def forward(self, x: Tensor) -> Tensor:
        drawn = self.up(x)
        return self.norm(drawn) + drawn


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(Shared, id="read by others, too"),
        pytest.param(lambda: nn.Sequential(up(4, 4, groups=2), trained_norm(4)), id="groups"),
        pytest.param(lambda: nn.Sequential(up(4, 4), nn.BatchNorm2d(4, track_running_stats=False)), id="no statistics"),
    ],
)
def test_what_cannot_be_folded_stays(network):
    torch.manual_seed(0)
    kept, x = network().eval(), torch.randn(1, 4, 5, 5)

    graph = with_folded_norms(kept, x)

    assert norms_in(graph) == 1
    assert_same(graph(x), kept(x))


def test_a_network_without_transposed_convolutions_is_left_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), trained_norm(4)).eval()

    assert with_folded_norms(network, torch.zeros(1, 3, 8, 8)) is network
