"""Inpainting by a context encoder: what is hidden of a picture, drawn from what is seen (Pathak et al. 2016)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.adversarial import discriminator_loss, frozen, generator_loss
from workers.families.base import Picture, Placement, ServingSpec, TrainState
from workers.families.images import to_tanh
from workers.families.records import RecordSet
from workers.families.supervised import in_eval_mode, spread
from workers.families.translation import figures
from workers.families.translation.context_encoder import SEEN, ContextEncoder, Filled, HoleDiscriminator, fill
from workers.families.translation.data import Batch, Indices
from workers.families.translation.draw import compared
from workers.families.translation.holes import grown, hide, masks_of
from workers.families.translation.inpaint_handler import InpaintHandler
from workers.families.translation.pictures_config import InpaintConfig
from workers.families.translation.pictures_data import PICTURES, PictureBatches, Pictures
from workers.families.translation.recipe import DISCRIMINATOR, GENERATOR, Request, TranslationRecipe, called, placed

_HELD_OUT_SEED = 1_000_003


class Inpaint(TranslationRecipe[InpaintConfig]):
    """Section 3: the squared distance to what was hidden, and a discriminator that sees the fill alone.

    Of the centre the discriminator sees the square that is drawn, of random regions the whole picture, filled.
    """

    metric = "eval/hole_mse"
    handler = InpaintHandler

    def __init__(self, config: InpaintConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        data = config.data
        self._train = RecordSet(dataset_dir, "train", families=PICTURES)
        held_out = RecordSet(dataset_dir, "val", families=PICTURES)
        self._held_out = Pictures(held_out, side=data.image_size, cache_mib=data.cache_mib // 4)

    @property
    def is_centre(self) -> bool:
        return self.config.hole.kind == "centre"

    def new_networks(self) -> dict[str, nn.Module]:
        side = self.config.data.image_size
        judged = side // 2 if self.is_centre else side
        discriminator = HoleDiscriminator(side=judged, width=self.config.model.discriminator_width)
        return {GENERATOR: _encoder(self.config), DISCRIMINATOR: discriminator}

    def train_batches(self) -> PictureBatches:
        data = self.config.data
        pictures = Pictures(self._train, side=data.load_size, cache_mib=data.cache_mib)
        return PictureBatches(pictures, data, seed=self.config.runtime.seed, make=self._hidden)

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        self.set_rates(state)
        loss = self.config.loss
        canvas = called(state.modules[GENERATOR], placement, batch.a)
        discriminator = state.modules[DISCRIMINATOR]
        drawn, real = self._judged(batch, canvas)
        logits = [called(discriminator, placement, images) for images in (real, drawn.detach())]
        against = discriminator_loss("nonsat", *logits)
        self.update(state, DISCRIMINATOR, against)
        with frozen(discriminator):
            distance = self.distance(batch, canvas)
            game = generator_loss("nonsat", called(discriminator, placement, drawn))
            total = loss.reconstruction * distance + loss.game * game
            self.update(state, GENERATOR, total)
        return {
            "train/loss": total.detach(),
            "train/loss_generator": game.detach(),
            "train/loss_discriminator": against.detach(),
            "train/distance": distance.detach(),
        }

    def distance(self, batch: Batch, canvas: Tensor) -> Tensor:
        """Return the mean squared distance over what is drawn; where that is seen it counts `loss.overlap` times."""
        hidden = (batch.a[:, 3:] > 0).to(canvas.dtype)
        drawn = grown(hidden, self.config.hole.overlap)
        weights = hidden + self.config.loss.overlap * (drawn - hidden)
        error = (weights * (canvas - batch.b).square()).flatten(1).sum(1)
        return (error / (canvas.shape[1] * drawn.flatten(1).sum(1))).mean()

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        scores: dict[str, list[Tensor]] = {f"eval/{name}": [] for name in ("hole_mse", "hole_l1", "hole_psnr", "ssim")}
        with in_eval_mode(state.modules[GENERATOR]) as generator, torch.inference_mode():
            for places in self.chunks(min(len(self._held_out), self.config.eval.num_images)):
                batch = self._held(places, placement)
                filled = fill(batch.a, called(generator, placement, batch.a))
                hidden = (batch.a[:, 3:] > 0).float()
                found = (*hole_errors(filled, batch.b, hidden), figures.ssim(filled, batch.b))
                for name, values in zip(scores, found, strict=True):
                    scores[name].append(values.cpu())
        return {name: figures.mean(values) for name, values in scores.items()}

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        places = np.asarray(spread(len(self._held_out), self.config.eval.num_samples))
        with in_eval_mode(state.modules[GENERATOR]) as generator, torch.inference_mode():
            batch = self._held(places, placement)
            filled = fill(batch.a, called(generator, placement, batch.a))
        columns = {"input": batch.a[:, :3], "output": filled, "target": batch.b}
        return [Picture(name="samples", png=compared(columns))]

    def golden_requests(self, count: int) -> list[Request]:
        records = self._held_out.records
        return [(records.read(place), {}) for place in spread(len(records), count)]

    def serving_module(self, state: TrainState) -> nn.Module:
        return Filled(state.modules[GENERATOR])

    def serving_spec(self) -> ServingSpec:
        side, hole = self.config.data.image_size, self.config.hole
        return ServingSpec(input_shape=(SEEN, side, side), constants={"hole": hole.kind, "overlap": hole.overlap})

    @classmethod
    def load_serving_module(cls, config: InpaintConfig, spec: ServingSpec) -> nn.Module:
        return Filled(_encoder(config))

    def _hidden(self, pictures: Tensor, generator: torch.Generator) -> Batch:
        masks = masks_of(len(pictures), pictures.shape[-1], self.config.hole, generator)
        return Batch(hide(pictures, masks), pictures)

    def _held(self, places: Indices, placement: Placement) -> Batch:
        """Return held-out pictures, each with the hole that it has at every evaluation."""
        made = [
            self._hidden(
                self._held_out.gather(np.asarray([place])),
                torch.Generator().manual_seed(_HELD_OUT_SEED + int(place)),
            )
            for place in places
        ]
        rows, targets = torch.cat([one.a for one in made]), torch.cat([one.b for one in made])
        return Batch(placed(to_tanh(rows), placement), placed(to_tanh(targets), placement))

    def _judged(self, batch: Batch, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the discriminator sees of a canvas, and of the truth."""
        if not self.is_centre:
            return fill(batch.a, canvas), batch.b
        first, last = canvas.shape[-1] // 4, canvas.shape[-1] * 3 // 4
        drawn, real = (images[..., first:last, first:last] for images in (canvas, batch.b))
        return drawn, real


def hole_errors(filled: Tensor, target: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean squared and absolute error and the ratio of peak to noise over hidden pixels, (N,) each."""
    counted = filled.shape[1] * hidden.flatten(1).sum(1)
    error = (filled - target).double() * hidden
    square, absolute = (values.flatten(1).sum(1) / counted for values in (error.square(), error.abs()))
    return square, absolute, figures.psnr_of(square)


def _encoder(config: InpaintConfig) -> ContextEncoder:
    return ContextEncoder(
        side=config.data.image_size,
        width=config.model.width,
        bottleneck=config.model.bottleneck,
        is_centre=config.hole.kind == "centre",
    )
