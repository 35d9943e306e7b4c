"""StyleGAN2: style mixing, a lazy path length and lazy R1 around the game (Karras et al. 2020)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from workers.families.base import Picture, Placement, TrainState
from workers.families.gan.config import StyleganConfig
from workers.families.gan.data import Batch
from workers.families.gan.discriminators import Discriminator
from workers.families.gan.draw import grid
from workers.families.gan.game import Game, Generate, build_adam
from workers.families.gan.generators import Generator
from workers.families.gan.recipe import GanRecipe, latents
from workers.families.gan.score import Score, Scorer
from workers.families.gan.style import StyleGenerator
from workers.families.gan.style_discriminator import StyleDiscriminator

PSIS = (1.0, 0.7, 0.4, 0.0)
_MEAN_RATE = 0.01
"""Share of a batch in the running mean of w."""
_PATH_SHARE = 2
"""The path length is measured on this part of a batch (appendix B)."""
_NUM_MIXED = 256


class StyleGan2(GanRecipe[StyleganConfig]):
    """The networks of Karras et al. (2020) with skips in the generator and residuals in the discriminator."""

    def new_discriminator(self) -> Discriminator:
        data = self.config.data
        return StyleDiscriminator(self.config.model, size=data.image_size[0], channels=data.channels)

    def build(self, placement: Placement) -> TrainState:
        state = super().build(placement)
        state.tensors["path_mean"] = torch.zeros((), device=placement.device)
        return state

    def generator_optimizer(self, generator: Generator) -> torch.optim.Optimizer:
        loss = self.config.loss
        every = loss.path_every if loss.path_weight else 0
        return build_adam(generator.parameters(), self.config, lr=self.config.optim.lr_generator, every=every)

    def drawing(self, generator: nn.Module, batch: Batch) -> Generate:
        net = cast("StyleGenerator", generator)
        return lambda: net.synthesis(self._mixed(net, len(batch.samples)), noises=net.random_noises(len(batch.samples)))

    def teach_generator(self, game: Game, state: TrainState, batch: Batch) -> dict[str, Tensor]:
        scalars = super().teach_generator(game, state, batch)
        if self.config.loss.path_weight and state.step % self.config.loss.path_every == 0:
            scalars |= self._straighten(game, state, max(1, len(batch.samples) // _PATH_SHARE))
        return scalars

    @torch.no_grad()
    def follow(self, state: TrainState) -> None:
        # Of the averaged mapping, if there is one: it is what truncation starts from.
        net = cast("StyleGenerator", self.served_generator(state))
        z = torch.randn(self.config.data.batch_size, net.latent_size, device=net.mean_w.device)
        rate = max(_MEAN_RATE, 1 / (1 + state.step))
        cast("StyleGenerator", state.modules["generator"]).mean_w.lerp_(net.mapping(z).mean(0), rate)
        super().follow(state)

    def more_figures(
        self, generator: Generator, scorer: Scorer, score: Score, placement: Placement
    ) -> dict[str, float]:
        net = cast("StyleGenerator", generator)
        spreads = [self._spread(net, psi, placement) for psi in PSIS]
        figures = {f"eval/spread_psi_{psi:g}": spread for psi, spread in zip(PSIS, spreads, strict=True)}
        figures["eval/spread_falls"] = float(spreads == sorted(spreads, reverse=True) and spreads[0] > spreads[-1])
        return figures | (self._mixing_figures(net, scorer, placement) if scorer.knows_classes else {})

    def more_pictures(self, generator: Generator, placement: Placement) -> list[Picture]:
        net = cast("StyleGenerator", generator)
        w = net.mapping(latents(net.latent_size, 8, seed=0).to(placement.device))
        truncated = torch.cat([net.synthesis(net.styles(w, psi=psi)).float() for psi in PSIS])
        coarse, fine = net.styles(w[:4]), net.styles(w[4:])
        mixed = torch.cat([net.synthesis(self._joined(one.expand_as(fine), fine)).float() for one in coarse[:, None]])
        return [
            Picture(name="truncation", png=grid(truncated, columns=len(w))),
            Picture(name="mixing", png=grid(mixed, columns=len(fine))),
        ]

    def _mixed(self, net: StyleGenerator, count: int) -> Tensor:
        """Return styles of which some change to another latent at a random layer."""
        first, second = net.mapping(torch.randn(2 * count, net.latent_size, device=net.mean_w.device)).chunk(2)
        cut = torch.randint(1, net.style_count, (count, 1), device=first.device)
        is_mixed = torch.rand(count, 1, device=first.device) < self.config.loss.mixing
        takes_second = (torch.arange(net.style_count, device=first.device) >= cut) & is_mixed
        return torch.where(takes_second[:, :, None], second[:, None], first[:, None])

    def _straighten(self, game: Game, state: TrainState, count: int) -> dict[str, Tensor]:
        """Update the generator so that steps in w move images by a steady length (section 3.2)."""
        loss = self.config.loss
        net = cast("StyleGenerator", state.modules["generator"])
        ws = self._mixed(net, count)
        images = net.synthesis(ws, noises=net.random_noises(count))
        noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
        lengths = gradient.square().sum(2).mean(1).sqrt()
        mean = state.tensors["path_mean"]
        mean.lerp_(lengths.detach().mean(), loss.path_decay)
        penalty = (lengths - mean).square().mean()
        game.update_generator(loss.path_weight * loss.path_every * penalty)
        return {"train/path_length": lengths.detach().mean(), "train/path_penalty": penalty.detach()}

    def _spread(self, net: StyleGenerator, psi: float, placement: Placement) -> float:
        """Return the mean deviation of a pixel between images, truncated by psi."""
        w = net.mapping(latents(net.latent_size, _NUM_MIXED, seed=0).to(placement.device))
        with placement.autocast():
            images = net.synthesis(net.styles(w, psi=psi))
        return float(images.float().std(0).mean())

    def _mixing_figures(self, net: StyleGenerator, scorer: Scorer, placement: Placement) -> dict[str, float]:
        """Return how often the class stays when the coarse or the fine styles are another image's."""
        z = latents(net.latent_size, 2 * _NUM_MIXED, seed=1).to(placement.device)
        own, other = net.styles(net.mapping(z)).chunk(2)
        with placement.autocast():
            drawn = [net.synthesis(ws) for ws in (own, self._joined(other, own), self._joined(own, other))]
        classes = [scorer.classes(images) for images in drawn]
        coarse, fine = (float((one == classes[0]).double().mean()) for one in classes[1:])
        return {
            "eval/kept_with_other_coarse": coarse,
            "eval/kept_with_other_fine": fine,
            "eval/mixing": fine - coarse,
        }

    def _joined(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return styles, the first half coarse, the others fine."""
        cut = coarse.shape[1] // 2
        return torch.cat([coarse[:, :cut], fine[:, cut:]], 1)
