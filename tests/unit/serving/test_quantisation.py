from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from workers.serving import quantisation
from workers.serving.flops import flops_of

pytestmark = pytest.mark.filterwarnings("ignore")


class Residual(nn.Module):
    """A block that calls its one activation twice, as torchvision's do, and adds in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norms[0](self.first(x)))
        out = self.norms[1](self.second(out))
        out += x
        return self.relu(out)


def digit_network() -> nn.Sequential:
    stem = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, Residual(16), nn.MaxPool2d(2), Residual(16), nn.Flatten(), nn.Linear(256, 10))


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return scans and labels to train on, and held out."""
    scans, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = torch.from_numpy(scans[order]).float().reshape(-1, 1, 8, 8) / 16
    y = torch.from_numpy(labels[order])
    return (x[:900], y[:900]), (x[900:], y[900:])


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    network = digit_network()
    (x, y), _ = digits()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(90):
        rows = torch.arange(step * 60, step * 60 + 60) % len(x)
        optimiser.zero_grad()
        functional.cross_entropy(network(x[rows]), y[rows]).backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


def quantise(network: nn.Module, calibration: Sequence[Tensor], *, is_saturating: bool = False) -> nn.Module:
    return quantisation.quantise(network, calibration, is_saturating=is_saturating)


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.inference_mode():
        answers = torch.cat([network(row) for row in x.split(1)])
    return float((answers.argmax(1) == y).float().mean())


@pytest.mark.parametrize("is_saturating", [False, True])
def test_a_trained_network_answers_held_out_images_as_well_in_int8(trained, is_saturating):
    (x, _), held_out = digits()

    quantised = quantise(trained, x[:8].split(1), is_saturating=is_saturating)

    exact = accuracy(trained, *held_out)
    assert exact > 0.95
    assert accuracy(quantised, *held_out) == pytest.approx(exact, abs=0.01)


def test_all_products_of_a_residual_network_but_the_first_compute_in_int8(trained):
    (x, _), _ = digits()

    graph = quantise(trained, x[:2].split(1))

    assert isinstance(graph, torch.fx.GraphModule)
    products = [node for node in graph.graph.nodes if any(name in str(node.target) for name in ("conv2d", "linear"))]
    are_rounded = [all("dequantize_per" in str(source.target) for source in product.args[:2]) for product in products]
    assert are_rounded == [False, True, True, True, True, True]


@pytest.mark.parametrize(("is_saturating", "largest"), [(False, 255), (True, 127)])
def test_two_products_fit_into_16_bits_where_the_processor_adds_them_there(trained, is_saturating, largest):
    (x, _), _ = digits()

    graph = quantise(trained, x[:8].split(1), is_saturating=is_saturating)

    assert isinstance(graph, torch.fx.GraphModule)
    # Of activations: (input, scale, zero point, least value, largest value, type).
    ranges = {node.args[3:5] for node in graph.graph.nodes if "quantize_per_tensor" in str(node.target)}
    assert ranges == {(0, largest)}
    assert (2 * largest * 128 < 2**15) == is_saturating


def test_the_network_itself_is_left_as_it_was(trained):
    (x, _), _ = digits()
    before = {name: value.clone() for name, value in trained.state_dict().items()}

    quantise(trained, x[:2].split(1))

    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("padding", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_convolutions_that_pad_by_themselves_stay_as_they_are(padding):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, **padding), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)
    ).eval()
    x = torch.rand(1, 1, 8, 8)

    torch.testing.assert_close(quantise(network, [x])(x), network(x), atol=0.05, rtol=0.05)


def test_there_must_be_something_to_calibrate_with(trained):
    with pytest.raises(ValueError, match="no inputs to calibrate with"):
        quantise(trained, [])


def test_what_calibration_has_not_seen_is_cut_off_so_a_gate_must_ask_it():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    dim, bright = torch.rand(1, 16), 20 * torch.rand(1, 16)

    blind, seeing = quantise(network, [dim]), quantise(network, [dim, bright])

    exact = network(bright)
    assert (seeing(bright) - exact).abs().max() < 0.05 * exact.abs().max()
    assert (blind(bright) - exact).abs().max() > 0.5 * exact.abs().max()


def test_the_work_of_a_forward_is_counted():
    network = nn.Conv2d(3, 8, 3, padding=1)

    # Two operations a product: 27 products for each of 8 channels of 16 pixels.
    assert flops_of(network, torch.zeros(1, 3, 4, 4)) == 2 * 27 * 8 * 16
