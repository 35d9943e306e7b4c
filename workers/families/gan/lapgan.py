"""LAPGAN: a pyramid of GANs, each trained on its own with the blurred real image beside it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from workers.families.base import Picture, Placement, TrainState
from workers.families.gan.config import LapganConfig
from workers.families.gan.data import Batch
from workers.families.gan.discriminators import ConvDiscriminator, Discriminator, LevelDiscriminator
from workers.families.gan.draw import grid
from workers.families.gan.game import Game, Generate, Judge, build_adam
from workers.families.gan.generators import LAP_START, Generator, LapGenerator, enlarge, lap_sizes, shrink
from workers.families.gan.recipe import GanRecipe, latents
from workers.families.gan.score import Drawn, Score, Scorer


class Lapgan(GanRecipe[LapganConfig]):
    """Denton et al. (2015). Level 0 is a small DCGAN; players of level k have the suffix `_k`."""

    def new_discriminator(self) -> Discriminator:
        model, data = self.config.model, self.config.data
        return ConvDiscriminator(
            size=model.base_size,
            channels=data.channels,
            width=model.base_channels,
            has_norm=self.config.loss.allows_batch_norm,
            end=LAP_START,
        )

    def build(self, placement: Placement) -> TrainState:
        generator = cast("LapGenerator", self.new_generator())
        model, data = self.config.model, self.config.data
        judges: list[Discriminator] = [self.new_discriminator()]
        for size in lap_sizes(self.config)[1:]:
            has_norm = self.config.loss.allows_batch_norm
            judges.append(
                LevelDiscriminator(size=size, channels=data.channels, width=model.level_channels, has_norm=has_norm)
            )
        self.place(generator, placement)
        loss, optim = self.config.loss, self.config.optim
        every = loss.r1_every if loss.r1_gamma else 0
        state = TrainState(modules={"generator": generator}, optimizers={}, ema=self.averages(generator))
        for level, (drawer, judge) in enumerate(zip((generator.base, *generator.levels), judges, strict=True)):
            self.place(judge, placement)
            state.modules[f"discriminator_{level}"] = judge
            rates = {"generator": optim.lr_generator, "discriminator": optim.lr_discriminator}
            state.optimizers[f"generator_{level}"] = build_adam(drawer.parameters(), self.config, lr=rates["generator"])
            state.optimizers[f"discriminator_{level}"] = build_adam(
                judge.parameters(), self.config, lr=rates["discriminator"], every=every
            )
        self.compile(state, placement)
        return state

    def compiled_parts(self, state: TrainState) -> list[nn.Module]:
        generator = cast("LapGenerator", state.modules["generator"])
        judges = [network for name, network in state.modules.items() if name != "generator"]
        return [generator.base, *generator.levels, *judges]

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        generator = cast("LapGenerator", state.modules["generator"])
        scalars: dict[str, Tensor] = {}
        pyramid = _pyramid([part.samples for part in batch.parts(self.config.optim.discriminator_steps)], generator)
        for level, reals in enumerate(pyramid):
            scalars |= self._train_level(state, reals, placement, level=level)
        self.follow(state)
        losses = [scalars[f"train/loss_{level}"] for level in range(len(pyramid))]
        return {"train/loss": torch.stack(losses).mean(), **scalars}

    def more_figures(
        self, generator: Generator, scorer: Scorer, score: Score, placement: Placement
    ) -> dict[str, float]:
        coarse = scorer.score(self._coarse(cast("LapGenerator", generator), placement))
        name = scorer.named("coarse_fid")
        return {name: coarse.fid, scorer.named("fid_of_coarse"): score.fid / max(coarse.fid, 1e-12)}

    def more_pictures(self, generator: Generator, placement: Placement) -> list[Picture]:
        pyramid = cast("LapGenerator", generator)
        z = latents(pyramid.latent_size, 8, seed=0).to(placement.device)
        size = (pyramid.sizes[-1], pyramid.sizes[-1])
        with placement.autocast():
            stages = [nn.functional.interpolate(images.float(), size) for images in pyramid.stages(z)]
        return [Picture(name="pyramid", png=grid(torch.cat(stages), columns=len(z)))]

    def _train_level(
        self, state: TrainState, reals: list[tuple[Tensor, Tensor | None]], placement: Placement, *, level: int
    ) -> dict[str, Tensor]:
        game = Game.of(state, self.config, placement, suffix=f"_{level}")
        game.set_rates(state.step)
        generator = cast("LapGenerator", state.modules["generator"])
        losses = []
        for real, blurred in reals:
            generate, judge = self._level(generator, game.discriminator, level, real, blurred)
            losses.append(game.teach_discriminator(real, generate, judge))
        real, blurred = reals[-1]
        generate, judge = self._level(generator, game.discriminator, level, real, blurred)
        scalars = game.regularise(real, judge, step=state.step)
        loss = game.teach_generator(generate, judge)
        named = {f"{name}_{level}": value for name, value in scalars.items()}
        return {f"train/loss_{level}": torch.stack(losses).mean(), f"train/loss_generator_{level}": loss, **named}

    def _level(
        self, generator: LapGenerator, discriminator: nn.Module, level: int, real: Tensor, blurred: Tensor | None
    ) -> tuple[Generate, Judge]:
        count, device = len(real), real.device
        if blurred is None:
            size = generator.base_latent
            return (lambda: generator.base(torch.randn(count, size, device=device))), discriminator
        below, refine = blurred, generator.levels[level - 1]
        plane = (count, 1, *real.shape[2:])
        return (
            lambda: below + refine(below, torch.randn(plane, device=device)),
            lambda samples: discriminator(torch.cat([samples, below], 1)),
        )

    def _coarse(self, generator: LapGenerator, placement: Placement) -> Drawn:
        """Yield the bottom's images at full size, without the detail of any level."""
        options = self.config.eval
        for z in torch.split(latents(generator.latent_size, options.num_images, seed=0), options.batch_size):
            with placement.autocast():
                images = generator.base(z[:, : generator.base_latent].to(placement.device)).float()
            while images.shape[-1] < generator.sizes[-1]:
                images = enlarge(images)
            yield images, None


def _pyramid(parts: list[Tensor], generator: LapGenerator) -> list[list[tuple[Tensor, Tensor | None]]]:
    """Return for each level, coarse to fine, what its updates see: real images and their blurred forms."""
    levels: list[list[tuple[Tensor, Tensor | None]]] = [[] for _ in generator.sizes]
    for images in parts:
        for level in reversed(range(len(generator.sizes))):
            below = shrink(images)
            levels[level].append((images, enlarge(below) if level else None))
            images = below
    return levels
