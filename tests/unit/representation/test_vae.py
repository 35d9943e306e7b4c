from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.distributions import Bernoulli, Normal, kl_divergence

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from workers.families.representation.config import VaeConfig
from workers.families.representation.vae import ServedVae, Vae, VaeNetwork, cross_entropy, divergence, entropy
from workers.families.representation.vae_handler import Row


def network_of(preset: str) -> VaeNetwork:
    config = VaeConfig.preset(preset)
    torch.manual_seed(0)
    return VaeNetwork(config.model, config.data)


def test_it_has_the_parameters_of_the_example_for_mnist() -> None:
    network = network_of("full")

    # 784-400, twice 400-20, 20-400, 400-784, with biases.
    assert sum(parameter.numel() for parameter in network.parameters()) == 652_824


def test_convolutions_halve_the_sides_to_four_by_four_and_back() -> None:
    network = network_of("conv")
    images = torch.rand(2, 3, 64, 64)

    logits, mean, log_variance = network(images, torch.zeros(2, 64))

    assert network.shape == (64, 4, 4)
    assert logits.shape == images.shape
    assert mean.shape == log_variance.shape == (2, 64)


def test_the_divergence_is_that_of_two_gaussians_and_nothing_at_the_prior() -> None:
    mean, log_variance = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)

    torch.testing.assert_close(divergence(mean, log_variance), expected)
    assert divergence(torch.zeros(3, 7), torch.zeros(3, 7)).tolist() == [0.0] * 3


def test_the_cross_entropy_is_summed_over_pixels() -> None:
    draws = torch.Generator().manual_seed(0)
    logits, images = torch.randn(4, 3, 2, 2, generator=draws), torch.rand(4, 3, 2, 2, generator=draws)
    one = Bernoulli(logits=logits)
    expected = -(images * one.probs.log() + (1 - images) * (1 - one.probs).log()).flatten(1).sum(1)

    torch.testing.assert_close(cross_entropy(logits, images), expected)


def test_the_entropy_is_the_least_that_the_cross_entropy_can_be() -> None:
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    best = cross_entropy(images.logit(), images)

    torch.testing.assert_close(entropy(images), best)
    assert (cross_entropy(images.logit() + 0.1, images) > best).all()
    assert entropy(images.round()).tolist() == [0.0] * 4


def test_the_draw_is_differentiable_through_mean_and_variance() -> None:
    network = network_of("full")

    logits, _, _ = network(torch.rand(2, 1, 28, 28), torch.ones(2, 20))
    logits.sum().backward()

    for head in (network.mean, network.log_variance):
        assert head.weight.grad is not None
        assert head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("preset", ["full", "conv"])
def test_a_served_row_decodes_its_numbers_or_a_draw_of_its_image(preset: str) -> None:
    network = network_of(preset).eval()
    config = VaeConfig.preset(preset)
    shape = (config.data.channels, *config.data.image_size)
    draws = torch.Generator().manual_seed(1)
    image, numbers = torch.rand(shape, generator=draws), torch.randn(network.latent_size, generator=draws)
    rows = torch.stack([Row(numbers).pack(shape), Row(numbers, image).pack(shape)])

    with torch.no_grad():
        images, means, log_variances = ServedVae(network, shape)(rows)
        mean, log_variance = network.encode(image[None])
        expected = [network.decode(z).sigmoid()[0] for z in (numbers[None], mean + (log_variance / 2).exp() * numbers)]

    torch.testing.assert_close(images, torch.stack(expected))
    torch.testing.assert_close(means[1:], mean)
    torch.testing.assert_close(log_variances[1:], log_variance)


def test_sides_that_do_not_survive_the_halving_are_refused_by_name() -> None:
    with pytest.raises(ValidationError, match=r"data.image_size must be multiples of 16 for 4 model.channels"):
        VaeConfig.model_validate({"data": {"image_size": (60, 64)}, "model": {"channels": (8, 8, 8, 8)}})


def test_curves_say_which_figures_lack_the_entropy_of_pixels(tmp_path: Path) -> None:
    stored = tmp_path / "canonical"
    stored.mkdir()
    folder = write_digits(tmp_path / "folder", size=8, train=4, val=2, classes=2)
    import_folder(folder, stored, source_format=None, limits=ImportLimits())
    recipe = Vae(VaeConfig.preset("tiny"), stored)

    labels = [recipe.curve_label(name) for name in ("train/loss", "train/loss_reconstruction", "train/loss_kl")]

    assert labels == [
        "train/loss (less the pixels' entropy)",
        "train/loss_reconstruction (less the pixels' entropy)",
        "train/loss_kl",
    ]
