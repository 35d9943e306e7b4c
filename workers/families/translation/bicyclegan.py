"""BicycleGAN: one input has many answers, each of a code that can be drawn or found (Zhu et al. 2017b)."""

from __future__ import annotations

import base64
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.adversarial import discriminator_loss, frozen, generator_loss
from workers.families.base import Picture, Placement, ServingSpec, TrainState
from workers.families.images import to_tanh
from workers.families.latent import draw
from workers.families.records import RecordSet
from workers.families.supervised import in_eval_mode, spread
from workers.families.translation import figures
from workers.families.translation.bicycle_networks import (
    Encoder,
    ManyWays,
    ScaledDiscriminator,
    new_encoder,
    new_generator,
)
from workers.families.translation.config import BicycleganConfig
from workers.families.translation.data import PAIRS, Batch, Indices, PairBatches, Pairs
from workers.families.translation.draw import compared
from workers.families.translation.many_handler import ManyHandler
from workers.families.translation.networks import Unet
from workers.families.translation.recipe import (
    DISCRIMINATOR,
    GENERATOR,
    Request,
    TranslationRecipe,
    called,
    placed,
)

ENCODER = "encoder"
OF_ENCODED, OF_DRAWN = "discriminator_encoded", "discriminator_drawn"
_DRAWS = 4
"""Codes in a sample picture."""


class Bicyclegan(TranslationRecipe[BicycleganConfig]):
    """Section 3 and the authors' code.

    Half of a batch are pairs to draw, the targets of the other half are what drawn codes are judged against. The loss of
    a drawn code is the generator's alone: an encoder that learned from it could hide the code where no eye finds it.
    Generator and encoder move first.
    """

    metric = "eval/l1"
    handler = ManyHandler

    def __init__(self, config: BicycleganConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        data = config.data
        self._train = RecordSet(dataset_dir, "train", families=PAIRS)
        held_out = RecordSet(dataset_dir, "val", families=PAIRS)
        self._held_out = Pairs(held_out, side=data.image_size, cache_mib=data.cache_mib // 4)

    def new_networks(self) -> dict[str, nn.Module]:
        model, loss = self.config.model, self.config.loss
        networks: dict[str, nn.Module] = {GENERATOR: new_generator(model)}
        if loss.mode != "noise":
            networks[ENCODER] = new_encoder(model)
        judges = [OF_ENCODED] * loss.encodes + [OF_DRAWN] * loss.draws
        return networks | {name: ScaledDiscriminator(model) for name in judges}

    def train_batches(self) -> PairBatches:
        data = self.config.data
        pairs = Pairs(self._train, side=data.load_size, cache_mib=data.cache_mib)
        return PairBatches(pairs, data, seed=self.config.runtime.seed)

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        self.set_rates(state)
        drawn, other = batch.parts(2)
        fakes, scalars = self._teach_generator(state, drawn, placement)
        reals = {OF_ENCODED: drawn, OF_DRAWN: drawn if self.config.loss.mode == "noise" else other}
        against = torch.stack(
            [self._against(state, name, reals[name], drawn.a, fake, placement) for name, fake in fakes.items()]
        ).sum()
        self.update(state, DISCRIMINATOR, against)
        return {**scalars, "train/loss_discriminator": against.detach()}

    def _teach_generator(
        self, state: TrainState, batch: Batch, placement: Placement
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Update generator and encoder; return what was drawn, by who judges it, and scalars."""
        judges = [network for name, network in state.modules.items() if name.startswith(DISCRIMINATOR)]
        with frozen(*judges):
            fakes, parts = self.generator_losses(state, batch, placement)
            total = torch.stack(list(parts.values())).sum()
            self.update(state, GENERATOR, total)
        scalars = {f"train/{name}": part.detach() for name, part in parts.items()}
        return {name: fake.detach() for name, fake in fakes.items()}, {"train/loss": total.detach(), **scalars}

    def generator_losses(
        self, state: TrainState, batch: Batch, placement: Placement
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what is drawn, by who judges it, and the weighted parts of the loss of generator and encoder."""
        loss = self.config.loss
        codes, parts = {}, {}
        if loss.encodes:
            mean, log_variance = self._found(state, batch.b, placement)
            codes[OF_ENCODED] = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            parts["kl"] = loss.kl * divergence(mean, log_variance)
        if loss.draws:
            shape = (len(batch.a), self.config.model.latent_size)
            codes[OF_DRAWN] = torch.randn(shape, device=batch.a.device)
        # Apart: under batch normalisation a drawn answer would depend on the encoded codes beside it.
        fakes = {name: called(state.modules[GENERATOR], placement, batch.a, z) for name, z in codes.items()}
        for name, fake in fakes.items():
            logits = self._logits(state.modules[name], batch.a, fake, placement)
            parts[f"game_{name.removeprefix('discriminator_')}"] = torch.stack(
                [generator_loss(loss.name, one) for one in logits]
            ).mean()
        if loss.mode != "clr":
            target = fakes[OF_ENCODED if loss.encodes else OF_DRAWN]
            parts["l1"] = loss.l1 * (target - batch.b).abs().mean()
        if loss.mode in ("bicycle", "clr"):
            # Where pictures teach the encoder already, a drawn code teaches the generator alone.
            with frozen(state.modules[ENCODER]) if loss.encodes else nullcontext():
                found, _ = self._found(state, fakes[OF_DRAWN], placement)
            parts["code"] = loss.code * (found - codes[OF_DRAWN]).abs().mean()
        return fakes, parts

    def _found(self, state: TrainState, images: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        with placement.autocast():
            mean, log_variance = state.modules[ENCODER](images)
        return mean.float(), log_variance.float()

    def _logits(self, judge: nn.Module, a: Tensor, images: Tensor, placement: Placement) -> list[Tensor]:
        seen = torch.cat([a, images], 1) if self.config.model.conditional else images
        with placement.autocast():
            logits: tuple[Tensor, ...] = judge(seen)
        return [one.float() for one in logits]

    def _against(
        self, state: TrainState, name: str, real: Batch, a: Tensor, fake: Tensor, placement: Placement
    ) -> Tensor:
        judge = state.modules[name]
        pairs = zip(
            self._logits(judge, real.a, real.b, placement), self._logits(judge, a, fake, placement), strict=True
        )
        losses = [discriminator_loss(self.config.loss.name, *pair) for pair in pairs]
        return torch.stack(losses).mean()

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        """Score targets from their own codes (drawn ones, if there is no encoder), and what drawn codes do."""
        scores: dict[str, list[Tensor]] = {}
        latent_size = self.config.model.latent_size
        with in_eval_mode(self._served(state)) as served, torch.inference_mode():
            for places in self.chunks(min(len(self._held_out), self.config.eval.num_images)):
                a, b = self._pairs(places, placement)
                one, other = (
                    draw([2 * int(place) + turn for place in places], latent_size).to(placement.device)
                    for turn in range(2)
                )
                drawn, second = (called(served.generator, placement, a, z) for z in (one, other))
                own = drawn
                if served.encoder is not None:
                    own = called(served.generator, placement, a, self._found(state, b, placement)[0])
                    found = self._found(state, drawn, placement)[0]
                    scores.setdefault("eval/code_l1", []).append((found - one).abs().mean(1).cpu())
                scores.setdefault("eval/l1", []).append(figures.l1(own, b).cpu())
                scores.setdefault("eval/psnr", []).append(figures.psnr(own, b).cpu())
                scores.setdefault("eval/ssim", []).append(figures.ssim(own, b).cpu())
                scores.setdefault("eval/diversity", []).append(figures.l1(drawn, second).cpu())
        return {name: figures.mean(values) for name, values in scores.items()}

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        places = np.asarray(spread(len(self._held_out), self.config.eval.num_samples))
        z = draw(range(_DRAWS), self.config.model.latent_size).to(placement.device)
        with in_eval_mode(self._served(state)) as served, torch.inference_mode():
            a, b = self._pairs(places, placement)
            columns = {"input": a, "target": b}
            if served.encoder is not None:
                columns["its code"] = called(served.generator, placement, a, self._found(state, b, placement)[0])
            for number, code in enumerate(z):
                columns[f"z {number}"] = called(served.generator, placement, a, code.expand(len(a), -1))
        return [Picture(name="samples", png=compared(columns))]

    def golden_requests(self, count: int) -> list[Request]:
        has_encoder = self.config.loss.mode != "noise"
        requests: list[Request] = []
        for number, place in enumerate(spread(len(self._held_out), count)):
            data = self._held_out.read(place)
            wish: dict[str, Any] = {"n": 1, "seed": number}
            if number % 4 == 3 and has_encoder:
                wish = {"style_image": {"b64": base64.b64encode(self._held_out.read_target(place)).decode()}}
            requests.append((data, wish if number else {}))
        return requests

    def serving_module(self, state: TrainState) -> nn.Module:
        return self._served(state)

    def serving_spec(self) -> ServingSpec:
        side, latent_size = self.config.data.image_size, self.config.model.latent_size
        constants = {"latent_size": latent_size, "has_encoder": self.config.loss.mode != "noise"}
        return ServingSpec(input_shape=(7 + latent_size, side, side), constants=constants)

    @classmethod
    def load_serving_module(cls, config: BicycleganConfig, spec: ServingSpec) -> nn.Module:
        encoder = new_encoder(config.model) if spec.constants["has_encoder"] else None
        return ManyWays(new_generator(config.model), encoder)

    def _served(self, state: TrainState) -> ManyWays:
        generator, encoder = state.modules[GENERATOR], state.modules.get(ENCODER)
        assert isinstance(generator, Unet)
        assert encoder is None or isinstance(encoder, Encoder)
        return ManyWays(generator, encoder).train(generator.training)

    def _pairs(self, places: Indices, placement: Placement) -> tuple[Tensor, Tensor]:
        pairs = to_tanh(self._held_out.gather(places))
        return placed(pairs[:, 0], placement), placed(pairs[:, 1], placement)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of codes from N(0, 1): a sum over a code, a mean over pictures."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()
