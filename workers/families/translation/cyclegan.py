"""CycleGAN: two domains without pairs, held together by the way there and back (Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.adversarial import discriminator_loss, frozen, generator_loss
from workers.families.base import Picture, Placement, ServingSpec, TrainState
from workers.families.images import to_tanh
from workers.families.supervised import in_eval_mode, spread
from workers.families.translation import figures
from workers.families.translation.config import CycleganConfig, CycleModel, TranslationConfig
from workers.families.translation.data import Batch, Domain, DomainBatches, Indices, open_domains
from workers.families.translation.draw import compared
from workers.families.translation.handler import DIRECTIONS, TwoWayHandler
from workers.families.translation.networks import PatchDiscriminator, ResnetGenerator
from workers.families.translation.pool import exchange, new_pool
from workers.families.translation.recipe import DISCRIMINATOR, GENERATOR, Request, TranslationRecipe, called, placed

TwoWayConfigT = TypeVar("TwoWayConfigT", bound=TranslationConfig)

TO_B, TO_A = "generator_ab", "generator_ba"
OF_A, OF_B = "discriminator_a", "discriminator_b"


class TwoWays(nn.Module):
    """Both generators as one network: pictures (N, 4, H, W), of which the last map says the way, 0 from A to B, 1 back.

    One row is one picture and has one way; of more rows the first decides.
    """

    def __init__(self, to_b: nn.Module, to_a: nn.Module) -> None:
        super().__init__()
        self.to_b, self.to_a = to_b, to_a

    def forward(self, rows: Tensor) -> Tensor:
        images, is_back = rows[:, :3], rows[0, 3, 0, 0] > 0.5
        if torch.compiler.is_exporting():
            # A graph holds both ways; only the one that is asked for is computed.
            drawn: Tensor = torch.cond(is_back, self.to_a, self.to_b, (images,))
            return drawn
        way = self.to_a if bool(is_back) else self.to_b
        one_way: Tensor = way(images)
        return one_way


class TwoWayRecipe(TranslationRecipe[TwoWayConfigT], Generic[TwoWayConfigT]):
    """What recipes of two domains share: data, figures without pairs, both ways in one served network.

    What a translator should do nobody knows where there are no pairs. `eval/patches` compares what it makes of held-out
    pictures with held-out pictures of the other domain, and `eval/cycle_l1` a picture with what comes back.
    """

    metric = "eval/patches"
    handler = TwoWayHandler

    def __init__(self, config: TwoWayConfigT, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        data = config.data
        self._train = open_domains(dataset_dir, "train", side=data.load_size, cache_mib=data.cache_mib)
        self._held_out = open_domains(dataset_dir, "val", side=data.image_size, cache_mib=data.cache_mib // 4)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._train[0].records.meta.classes

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        with in_eval_mode(both_ways(state)) as ways, torch.inference_mode():
            ways_there = ((ways.to_b, ways.to_a), (ways.to_a, ways.to_b))
            found = [
                self._score(domain, there, back, other, placement)
                for domain, (there, back), other in zip(
                    self._held_out, ways_there, reversed(self._held_out), strict=True
                )
            ]
        # Both directions, each by itself and in the mean.
        named = {
            f"{name}_{way}": value
            for way, scores in zip(("ab", "ba"), found, strict=True)
            for name, value in scores.items()
        }
        return {name: (found[0][name] + found[1][name]) / 2 for name in found[0]} | named

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        pictures = []
        with in_eval_mode(both_ways(state)) as ways, torch.inference_mode():
            for place, name in enumerate(("samples", "samples_back")):
                there, back = (ways.to_b, ways.to_a) if place == 0 else (ways.to_a, ways.to_b)
                domain, (source, target) = self._held_out[place], (self.classes[place], self.classes[1 - place])
                images = _pictures(domain, np.asarray(spread(len(domain), self.config.eval.num_samples)), placement)
                turned = called(there, placement, images)
                columns = {source: images, f"as {target}": turned, f"{source} again": called(back, placement, turned)}
                pictures.append(Picture(name=name, png=compared(columns)))
        return pictures

    def golden_requests(self, count: int) -> list[Request]:
        requests: list[Request] = []
        for number in range(count):
            # The first of each way are asked for as people mostly do.
            domain = self._held_out[number % 2]
            asked: dict[str, Any] = {} if number % 2 == 0 else {"direction": DIRECTIONS[1]}
            requests.append((domain.read(number // 2 % len(domain)), asked | ({"back": True} if number == 2 else {})))
        return requests

    def serving_module(self, state: TrainState) -> nn.Module:
        return both_ways(state)

    def serving_spec(self) -> ServingSpec:
        side = self.config.data.image_size
        return ServingSpec(input_shape=(4, side, side), constants={"classes": list(self.classes)})

    def _score(
        self, domain: Domain, there: nn.Module, back: nn.Module, other: Domain, placement: Placement
    ) -> dict[str, float]:
        """Return the figures of one way: to the other domain `there`, and `back`."""
        turned, cycle, identity = [], [], []
        for images in self._seen(domain, placement):
            turned.append(called(there, placement, images))
            cycle.append(figures.l1(called(back, placement, turned[-1]), images).cpu())
        reals = []
        for images in self._seen(other, placement):
            reals.append(images.cpu())
            identity.append(figures.l1(called(there, placement, images), images).cpu())
        patches = figures.sliced_distance(torch.cat(reals), torch.cat([one.cpu() for one in turned]))
        return {
            "eval/patches": patches,
            "eval/cycle_l1": figures.mean(cycle),
            "eval/identity_l1": figures.mean(identity),
        }

    def _seen(self, domain: Domain, placement: Placement) -> Iterator[Tensor]:
        for places in self.chunks(min(len(domain), self.config.eval.num_images)):
            yield _pictures(domain, places, placement)


class Cyclegan(TwoWayRecipe[CycleganConfig]):
    """Section 3, with the training details of section 4: least squares, a pool of 50 images, one Adam for each side.

    Generators move first, as in the authors' code; losses of the discriminators count half.
    """

    def new_networks(self) -> dict[str, nn.Module]:
        model = self.config.model
        judges = {
            name: PatchDiscriminator(
                channels=3, width=model.discriminator_width, layers=model.discriminator_layers, norm=None
            )
            for name in (OF_A, OF_B)
        }
        return {TO_B: _resnet(model), TO_A: _resnet(model), **judges}

    def build(self, placement: Placement) -> TrainState:
        state = super().build(placement)
        side = self.config.data.image_size
        if self.config.loss.pool_size:
            shape = (3, side, side)
            state.tensors |= {
                name: new_pool(self.config.loss.pool_size, shape, placement.device) for name in ("pool_a", "pool_b")
            }
        return state

    def train_batches(self) -> DomainBatches:
        return DomainBatches(self._train, self.config.data, seed=self.config.runtime.seed)

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        self.set_rates(state)
        fakes, scalars = self._teach_generators(state, batch, placement)
        against = torch.stack(
            [
                self._against(state, judge, real, self._shown(state, pool, fake), placement)
                for judge, pool, real, fake in (
                    (OF_A, "pool_a", batch.a, fakes[0]),
                    (OF_B, "pool_b", batch.b, fakes[1]),
                )
            ]
        ).sum()
        self.update(state, DISCRIMINATOR, against)
        return {**scalars, "train/loss_discriminator": against.detach()}

    def _teach_generators(
        self, state: TrainState, batch: Batch, placement: Placement
    ) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
        """Update both generators, and return what they drew, of A and of B, and scalars."""
        loss, modules = self.config.loss, state.modules
        to_b, to_a = modules[TO_B], modules[TO_A]
        with frozen(modules[OF_A], modules[OF_B]):
            fake_b, fake_a = called(to_b, placement, batch.a), called(to_a, placement, batch.b)
            game = generator_loss(loss.name, called(modules[OF_B], placement, fake_b))
            game = game + generator_loss(loss.name, called(modules[OF_A], placement, fake_a))
            cycle = (called(to_a, placement, fake_b) - batch.a).abs().mean()
            cycle = cycle + (called(to_b, placement, fake_a) - batch.b).abs().mean()
            total = game + loss.cycle * cycle
            scalars = {"train/loss_generator": game.detach(), "train/cycle_l1": cycle.detach()}
            if weight := loss.cycle * loss.identity:
                same = (called(to_b, placement, batch.b) - batch.b).abs().mean()
                same = same + (called(to_a, placement, batch.a) - batch.a).abs().mean()
                total = total + weight * same
                scalars["train/identity_l1"] = same.detach()
            self.update(state, GENERATOR, total)
        return (fake_a.detach(), fake_b.detach()), {"train/loss": total.detach(), **scalars}

    def _shown(self, state: TrainState, pool: str, fakes: Tensor) -> Tensor:
        if pool not in state.tensors:
            return fakes
        return exchange(state.tensors[pool], fakes, seen=state.step * len(fakes))

    def _against(self, state: TrainState, judge: str, real: Tensor, fake: Tensor, placement: Placement) -> Tensor:
        logits = (called(state.modules[judge], placement, images) for images in (real, fake))
        return 0.5 * discriminator_loss(self.config.loss.name, *logits)

    @classmethod
    def load_serving_module(cls, config: CycleganConfig, spec: ServingSpec) -> nn.Module:
        return TwoWays(_resnet(config.model), _resnet(config.model))


def both_ways(state: TrainState) -> TwoWays:
    """Return both generators as they are served."""
    return TwoWays(state.modules[TO_B], state.modules[TO_A]).train(state.modules[TO_B].training)


def _pictures(domain: Domain, places: Indices, placement: Placement) -> Tensor:
    return placed(to_tanh(domain.gather(places)), placement)


def _resnet(model: CycleModel) -> ResnetGenerator:
    return ResnetGenerator(width=model.width, blocks=model.blocks)
