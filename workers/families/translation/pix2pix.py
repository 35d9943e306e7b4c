"""pix2pix: each picture has the one it should become (Isola et al. 2017)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.adversarial import discriminator_loss, frozen, generator_loss
from workers.families.base import BatchSource, Picture, Placement, ServingSpec, TrainState
from workers.families.images import to_tanh
from workers.families.records import RecordSet
from workers.families.supervised import in_eval_mode, spread
from workers.families.translation import figures
from workers.families.translation.config import Pix2pixConfig, UnetModel
from workers.families.translation.data import PAIRS, Batch, Indices, PairBatches, Pairs
from workers.families.translation.draw import compared
from workers.families.translation.handler import PairedHandler, TranslationHandler
from workers.families.translation.networks import NORMS, PatchDiscriminator, Unet
from workers.families.translation.recipe import DISCRIMINATOR, GENERATOR, Request, TranslationRecipe, called, placed


class Pix2pix(TranslationRecipe[Pix2pixConfig]):
    """Section 3: a conditional GAN, whose discriminator sees the input beside the answer, and the distance in L1.

    Of the paper it leaves dropout at test time, which was all its noise and hardly changed anything: answers are fixed.
    The discriminator's loss counts half, and it moves first, as in the authors' code.
    """

    metric = "eval/l1"
    handler: ClassVar[type[TranslationHandler]] = PairedHandler

    def __init__(self, config: Pix2pixConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self.open_dataset()

    def open_dataset(self) -> None:
        """Index the dataset; reads no picture."""
        data, dataset_dir = self.config.data, self.dataset_dir
        self._train = RecordSet(dataset_dir, "train", families=PAIRS)
        held_out = RecordSet(dataset_dir, "val", families=PAIRS)
        self._held_out = Pairs(held_out, side=data.image_size, cache_mib=data.cache_mib // 4)

    def new_networks(self) -> dict[str, nn.Module]:
        model = self.config.model
        discriminator = PatchDiscriminator(
            channels=6, width=model.discriminator_width, layers=model.discriminator_layers, norm=NORMS[model.norm]
        )
        return {GENERATOR: _unet(model), DISCRIMINATOR: discriminator}

    def train_batches(self) -> BatchSource[Batch]:
        data = self.config.data
        pairs = Pairs(self._train, side=data.load_size, cache_mib=data.cache_mib)
        return PairBatches(pairs, data, seed=self.config.runtime.seed)

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        self.set_rates(state)
        loss = self.config.loss
        generator, discriminator = state.modules[GENERATOR], state.modules[DISCRIMINATOR]
        fake = called(generator, placement, batch.a)
        real_logits, fake_logits = (
            called(discriminator, placement, torch.cat([batch.a, one], 1)) for one in (batch.b, fake.detach())
        )
        against = 0.5 * discriminator_loss(loss.name, real_logits, fake_logits)
        self.update(state, DISCRIMINATOR, against)
        with frozen(discriminator):
            game = generator_loss(loss.name, called(discriminator, placement, torch.cat([batch.a, fake], 1)))
            distance = (fake - batch.b).abs().mean()
            total = game + loss.l1 * distance
            self.update(state, GENERATOR, total)
        return {
            "train/loss": total.detach(),
            "train/loss_generator": game.detach(),
            "train/loss_discriminator": against.detach(),
            "train/l1": distance.detach(),
        }

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        scores: dict[str, list[Tensor]] = {"eval/l1": [], "eval/psnr": [], "eval/ssim": []}
        measures = (figures.l1, figures.psnr, figures.ssim)
        with in_eval_mode(state.modules[GENERATOR]) as generator, torch.inference_mode():
            for places in self.chunks(min(len(self._held_out), self.config.eval.num_images)):
                a, b = self._pairs(places, placement)
                found = called(generator, placement, a)
                for name, measure in zip(scores, measures, strict=True):
                    scores[name].append(measure(found, b).cpu())
        return {name: figures.mean(values) for name, values in scores.items()}

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        places = spread(len(self._held_out), self.config.eval.num_samples)
        with in_eval_mode(state.modules[GENERATOR]) as generator, torch.inference_mode():
            a, b = self._pairs(np.asarray(places), placement)
            found = called(generator, placement, a)
        return [Picture(name="samples", png=compared({"input": a, "output": found, "target": b}))]

    def golden_requests(self, count: int) -> list[Request]:
        return [(self._held_out.read(place), {}) for place in spread(len(self._held_out), count)]

    def serving_module(self, state: TrainState) -> nn.Module:
        return state.modules[GENERATOR]

    def serving_spec(self) -> ServingSpec:
        side = self.config.data.image_size
        return ServingSpec(input_shape=(3, side, side), constants={})

    @classmethod
    def load_serving_module(cls, config: Pix2pixConfig, spec: ServingSpec) -> nn.Module:
        return _unet(config.model)

    def _pairs(self, places: Indices, placement: Placement) -> tuple[Tensor, Tensor]:
        pairs = to_tanh(self._held_out.gather(places))
        return placed(pairs[:, 0], placement), placed(pairs[:, 1], placement)


def _unet(model: UnetModel) -> Unet:
    return Unet(width=model.width, depth=model.depth, norm=NORMS[model.norm], dropout=model.dropout)
