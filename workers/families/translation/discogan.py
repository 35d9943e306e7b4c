"""DiscoGAN: two domains without pairs, by discriminators' features and both ways (Kim et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.families.adversarial import discriminator_loss, frozen, generator_loss, small_weights
from workers.families.base import Placement, ServingSpec, TrainState
from workers.families.translation.config import DiscoganConfig, DiscoModel
from workers.families.translation.cyclegan import OF_A, OF_B, TO_A, TO_B, TwoWayRecipe, TwoWays
from workers.families.translation.data import Batch, DomainBatches
from workers.families.translation.networks import SLOPE
from workers.families.translation.recipe import DISCRIMINATOR, GENERATOR, called

_SMALLEST = 4
"""Side of the smallest maps."""


class DiscoGenerator(nn.Module):
    """Strided convolutions down to 4 x 4 and transposed ones back, with a bottleneck of one pixel between, if wanted.

    The paper's last layer is a sigmoid on pictures from 0 to 1; here it is Tanh on the range that all recipes have.
    """

    def __init__(self, *, side: int, width: int, bottleneck: int) -> None:
        super().__init__()
        widths = _widths(side, width)
        layers: list[nn.Module] = []
        for source, target in zip([3, *widths], widths, strict=False):
            layers.append(nn.Conv2d(source, target, 4, stride=2, padding=1, bias=False))
            layers += [] if source == 3 else [nn.BatchNorm2d(target)]
            layers.append(nn.LeakyReLU(SLOPE))
        if bottleneck:
            down = nn.Conv2d(widths[-1], bottleneck, _SMALLEST, bias=False)
            up = nn.ConvTranspose2d(bottleneck, widths[-1], _SMALLEST, bias=False)
            layers += [down, nn.BatchNorm2d(bottleneck), nn.LeakyReLU(SLOPE), up, nn.BatchNorm2d(widths[-1]), nn.ReLU()]
        for source, target in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up = nn.ConvTranspose2d(source, target, 4, stride=2, padding=1, bias=False)
            layers += [up, nn.BatchNorm2d(target), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[0], 3, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(small_weights)

    def forward(self, images: Tensor) -> Tensor:
        drawn: Tensor = self.layers(images)
        return drawn


class DiscoDiscriminator(nn.Module):
    """Strided convolutions down to 4 x 4, and one logit."""

    def __init__(self, *, side: int, width: int) -> None:
        super().__init__()
        widths = _widths(side, width)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(source, target, 4, stride=2, padding=1, bias=False),
                *([] if source == 3 else [nn.BatchNorm2d(target)]),
                nn.LeakyReLU(SLOPE),
            )
            for source, target in zip([3, *widths], widths, strict=False)
        )
        self.last = nn.Conv2d(widths[-1], 1, _SMALLEST)
        self.apply(small_weights)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return logits (N, 1, 1, 1), then the maps of every stage but the first."""
        maps, features = images, []
        for stage in self.stages:
            maps = stage(maps)
            features.append(maps)
        return self.last(maps), *features[1:]


class Discogan(TwoWayRecipe[DiscoganConfig]):
    """Section 3 and the authors' code: of three iterations one is the discriminators', which make one step here.

    A step has as many batches as updates. Features are compared by their means over a batch, so large batches matter.
    """

    def new_networks(self) -> dict[str, nn.Module]:
        side, model = self.config.data.image_size, self.config.model
        judges = {name: DiscoDiscriminator(side=side, width=model.discriminator_width) for name in (OF_A, OF_B)}
        return {TO_B: _generator(model, side), TO_A: _generator(model, side), **judges}

    def train_batches(self) -> DomainBatches:
        return DomainBatches(self._train, self.config.data, seed=self.config.runtime.seed, parts=self._parts)

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        self.set_rates(state)
        first, *others = batch.parts(self._parts)
        against = self._teach_discriminators(state, first, placement)
        told = [self._teach_generators(state, part, placement) for part in others]
        scalars = {name: torch.stack([one[name] for one in told]).mean() for name in told[0]}
        return {**scalars, "train/loss_discriminator": against}

    @property
    def _parts(self) -> int:
        return 1 + self.config.optim.generator_steps

    def _teach_discriminators(self, state: TrainState, batch: Batch, placement: Placement) -> Tensor:
        with torch.no_grad():
            fakes = called(state.modules[TO_A], placement, batch.b), called(state.modules[TO_B], placement, batch.a)
        losses = []
        for name, real, fake in zip((OF_A, OF_B), (batch.a, batch.b), fakes, strict=True):
            logits = (judged(state.modules[name], placement, images)[0] for images in (real, fake))
            losses.append(0.5 * discriminator_loss(self.config.loss.name, *logits))
        total = torch.stack(losses).sum()
        self.update(state, DISCRIMINATOR, total)
        return total.detach()

    def _teach_generators(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        loss, modules = self.config.loss, state.modules
        rate = loss.rate if state.step >= loss.start_steps else loss.rate_start
        with frozen(modules[OF_A], modules[OF_B]):
            fake_b, fake_a = called(modules[TO_B], placement, batch.a), called(modules[TO_A], placement, batch.b)
            back_a, back_b = called(modules[TO_A], placement, fake_b), called(modules[TO_B], placement, fake_a)
            games, features = [], []
            for name, real, fake in ((OF_A, batch.a, fake_a), (OF_B, batch.b, fake_b)):
                logits, *found = judged(modules[name], placement, fake)
                with torch.no_grad():
                    _, *wanted = judged(modules[name], placement, real)
                games.append(generator_loss(loss.name, logits))
                features.append(feature_distance(wanted, found))
            game, distance = torch.stack(games).sum(), torch.stack(features).sum()
            cycle = (back_a - batch.a).square().mean() + (back_b - batch.b).square().mean()
            total = (1 - rate) * (loss.game * game + loss.features * distance) + rate * cycle
            self.update(state, GENERATOR, total)
        return {
            "train/loss": total.detach(),
            "train/loss_generator": game.detach(),
            "train/features": distance.detach(),
            "train/cycle": cycle.detach(),
        }

    @classmethod
    def load_serving_module(cls, config: DiscoganConfig, spec: ServingSpec) -> nn.Module:
        side = config.data.image_size
        return TwoWays(_generator(config.model, side), _generator(config.model, side))


def judged(discriminator: nn.Module, placement: Placement, images: Tensor) -> list[Tensor]:
    """Return logits and features in fp32."""
    with placement.autocast():
        found: tuple[Tensor, ...] = discriminator(images)
    return [one.float() for one in found]


def feature_distance(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Return the squared distance between mean features over the batch, a mean over maps, summed over stages."""
    distances = [(one.mean(0) - other.mean(0)).square().mean() for one, other in zip(real, fake, strict=True)]
    return torch.stack(distances).sum()


def _widths(side: int, width: int) -> list[int]:
    stages = (side // _SMALLEST).bit_length() - 1
    return [width * 2**stage for stage in range(stages)]


def _generator(model: DiscoModel, side: int) -> DiscoGenerator:
    return DiscoGenerator(side=side, width=model.width, bottleneck=model.bottleneck)
