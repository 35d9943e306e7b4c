"""The variational autoencoder: an image as a Gaussian of causes, and back (Kingma and Welling, ICLR 2014).

The bound of section 2.2 with the reparameterised draw of section 2.4 and the divergence of appendix B; sizes as in
PyTorch's example (`vae/main.py` of pytorch/examples). Pixels from 0 to 1 are taken as chances of Bernoulli draws, so
figures of grey pixels compare with each other and are no likelihood of the images themselves.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families import latent
from workers.families.base import Golden, Picture, Placement, ServingSpec, TrainState
from workers.families.representation.config import Data, VaeConfig, VaeModel
from workers.families.representation.data import Batch, flipped, to_unit
from workers.families.representation.figures import active_units, knn_accuracy
from workers.families.representation.recipe import RepresentationRecipe
from workers.families.representation.vae_handler import Row, make_golden
from workers.families.sheets import compared, grid
from workers.families.supervised import in_eval_mode, served_network, spread

_EVAL_SEED = 1_000_003
_SAMPLES = 64
_WALKS, _WALK_STEPS = 4, 10
_LESS_ENTROPY = frozenset({"train/loss", "train/loss_reconstruction"})
"""Scalars that are lower than the figures of evaluation by what no network can change."""


class VaeNetwork(nn.Module):
    """q(z|x) as a mean and the logarithm of a variance for each unit of z, and p(x|z) as logits of pixels."""

    def __init__(self, model: VaeModel, data: Data) -> None:
        super().__init__()
        planes, (height, width) = (data.channels, *model.channels), data.image_size
        times = 2 ** len(model.channels)
        self.shape = (planes[-1], height // times, width // times)
        self.latent_size = model.latent_size
        widths = (self.shape[0] * self.shape[1] * self.shape[2], *model.widths)
        inward: list[nn.Module] = []
        for few, many in pairwise(planes):
            inward += [nn.Conv2d(few, many, 4, stride=2, padding=1), nn.ReLU()]
        inward.append(nn.Flatten())
        for wide, narrow in pairwise(widths):
            inward += [nn.Linear(wide, narrow), nn.ReLU()]
        self.encoder = nn.Sequential(*inward)
        self.mean = nn.Linear(widths[-1], model.latent_size)
        self.log_variance = nn.Linear(widths[-1], model.latent_size)
        outward: list[nn.Module] = []
        for narrow, wide in pairwise((model.latent_size, *reversed(widths))):
            outward += [nn.Linear(narrow, wide), nn.ReLU()]
        outward[-1] = nn.Unflatten(1, self.shape)
        for many, few in pairwise(reversed(planes)):
            outward += [nn.ReLU(), nn.ConvTranspose2d(many, few, 4, stride=2, padding=1)]
        self.decoder = nn.Sequential(*outward)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (N, D) of images (N, C, H, W) from 0 to 1."""
        hidden = self.encoder(images)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Return logits of pixels (N, C, H, W)."""
        logits: Tensor = self.decoder(z)
        return logits

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits at a draw of z, and mean and log variance; noise (N, D) is of N(0, 1)."""
        mean, log_variance = self.encode(images)
        return self.decode(mean + (0.5 * log_variance).exp() * noise), mean, log_variance


class ServedVae(nn.Module):
    """Rows in; images (N, C, H, W) from 0 to 1, means and log variances (N, D) out.

    A row holds the pixels of an image, D numbers and a switch, so that one exported network answers every operation:
    with the switch on, the numbers are noise for a draw of the image's z; with it off, they are z.
    """

    def __init__(self, network: VaeNetwork, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.shape = shape

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = self.network.latent_size
        pixels, numbers, switch = torch.split(rows, [rows.shape[1] - size - 1, size, 1], dim=1)
        mean, log_variance = self.network.encode(pixels.reshape(-1, *self.shape))
        z = torch.where(switch > 0.5, mean + (0.5 * log_variance).exp() * numbers, numbers)
        return self.network.decode(z).float().sigmoid(), mean.float(), log_variance.float()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(q(z|x) || N(0, 1)) of each row (N, D), in nats, (N,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def cross_entropy(logits: Tensor, images: Tensor) -> Tensor:
    """Return -log p(x|z) of each image (N, C, H, W) from 0 to 1, summed over its pixels, in nats, (N,)."""
    return functional.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(1)


def entropy(images: Tensor) -> Tensor:
    """Return the least that `cross_entropy` can be for each image (N, C, H, W): that of grey pixels is above 0, (N,)."""
    each: Tensor = torch.special.entr(images) + torch.special.entr(1 - images)
    return each.flatten(1).sum(1)


class Vae(RepresentationRecipe[VaeConfig]):
    """Figures are means over held-out images in nats; `eval/elbo` is the bound itself, below 0: higher is better."""

    metric = "eval/elbo"

    def new_network(self) -> VaeNetwork:
        return VaeNetwork(self.config.model, self.config.data)

    def change(self, images: Tensor) -> Tensor:
        return flipped(images, self.config.data.flip)

    def draw(self, count: int) -> Tensor:
        return torch.randn(count, self.config.model.latent_size)

    def to_network(self, pixels: Tensor) -> Tensor:
        return to_unit(pixels)

    def features(self, network: nn.Module, images: Tensor) -> Tensor:
        return _vae(network).encode(images)[0]

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        with placement.autocast():
            logits, mean, log_variance = network(batch.images, batch.noise)
        return {
            # Less what no network can change, so that curves end near 0; gradients are those of the bound.
            "reconstruction": (cross_entropy(logits.float(), batch.images) - entropy(batch.images)).mean(),
            "kl": self.config.loss.beta * divergence(mean.float(), log_variance.float()).mean(),
        }

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        with in_eval_mode(served_network(state)) as network, torch.inference_mode():
            reconstruction, kl, means = self._terms(network, placement)
            features = self.judged_features(network, placement)
        judged = {}
        if features is not None:
            near = self.config.eval.neighbours
            judged["eval/knn_accuracy"] = knn_accuracy(*features[0], *features[1], neighbours=near)
        return {
            "eval/elbo": -(reconstruction + kl),
            "eval/reconstruction": reconstruction,
            "eval/kl": kl,
            "eval/active_units": float(active_units(means)),
            **judged,
        }

    def curve_label(self, scalar: str) -> str:
        return f"{scalar} (less the pixels' entropy)" if scalar in _LESS_ENTROPY else scalar

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        size, device = self.config.model.latent_size, placement.device
        given = self.held_out(self.config.eval.num_samples)
        with in_eval_mode(served_network(state)) as network, torch.inference_mode(), placement.autocast():
            vae = _vae(network)
            found = vae.decode(vae.encode(to_unit(given).to(device))[0])
            drawn = vae.decode(latent.draw(range(_SAMPLES), size).to(device))
            ends = latent.draw(range(2 * _WALKS), size)
            ways = [latent.walk(one, other, _WALK_STEPS) for one, other in zip(ends[::2], ends[1::2], strict=True)]
            walked = vae.decode(torch.cat(ways).to(device))
        return [
            Picture(name="reconstructions", png=compared({"input": given, "reconstruction": _pixels(found)})),
            Picture(name="samples", png=grid(_pixels(drawn), columns=8)),
            Picture(name="walk", png=grid(_pixels(walked), columns=_WALK_STEPS)),
        ]

    def serving_module(self, state: TrainState) -> nn.Module:
        return ServedVae(_vae(served_network(state)), _shape(self.config.data))

    def serving_spec(self) -> ServingSpec:
        shape, size = _shape(self.config.data), self.config.model.latent_size
        return ServingSpec(input_shape=(Row.width(shape, size),), constants={"image": list(shape), "latent_size": size})

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        encoded = [self._held_out.records.read(place) for place in spread(len(self._held_out), -(-2 * count // 3))]
        with in_eval_mode(served_network(state)):
            return make_golden(self.serving_module(state), self.serving_spec(), encoded, device=placement.device)

    @classmethod
    def load_serving_module(cls, config: VaeConfig, spec: ServingSpec) -> nn.Module:
        return ServedVae(VaeNetwork(config.model, config.data), _shape(config.data))

    def _terms(self, network: nn.Module, placement: Placement) -> tuple[float, float, Tensor]:
        """Return the bound's two terms, means over the held-out images with one draw each, and the means of z."""
        draws = torch.Generator().manual_seed(_EVAL_SEED)
        terms, means = torch.zeros(2, dtype=torch.float64), []
        for images in self.held_out_batches(placement):
            noise = torch.randn(len(images), self.config.model.latent_size, generator=draws).to(placement.device)
            with placement.autocast():
                logits, mean, log_variance = network(images, noise)
            parts = (cross_entropy(logits.float(), images), divergence(mean.float(), log_variance.float()))
            terms += torch.stack([part.double().sum() for part in parts]).cpu()
            means.append(mean.float().cpu())
        reconstruction, kl = (terms / len(self._held_out)).tolist()
        return reconstruction, kl, torch.cat(means)


def _vae(network: nn.Module) -> VaeNetwork:
    assert isinstance(network, VaeNetwork)
    return network


def _shape(data: Data) -> tuple[int, ...]:
    return (data.channels, *data.image_size)


def _pixels(logits: Tensor) -> Tensor:
    return (logits.float().sigmoid() * 255).round().to(torch.uint8).cpu()
