"""Colourisation: pix2pix from the lightness of pictures to their colours, in CIE L*a*b* (Isola et al. 2017, section 4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.base import Picture, Placement, ServingSpec, TrainState
from workers.families.images import to_tanh
from workers.families.records import RecordSet
from workers.families.supervised import in_eval_mode, spread
from workers.families.translation import figures
from workers.families.translation.colorize_handler import ColorizeHandler
from workers.families.translation.config import Pix2pixConfig, UnetModel
from workers.families.translation.data import Batch, Indices
from workers.families.translation.draw import compared
from workers.families.translation.lab import from_lab, to_lab
from workers.families.translation.networks import NORMS, PatchDiscriminator, Unet
from workers.families.translation.pictures_data import PICTURES, PictureBatches, Pictures
from workers.families.translation.pix2pix import Pix2pix
from workers.families.translation.recipe import DISCRIMINATOR, GENERATOR, Request, called, placed

_LEAST_COLOUR = 0.02
"""Colourfulness of a target that counts as grey; a share of less says nothing."""


class Colorize(Pix2pix):
    """The step of pix2pix; a network sees lightness alone, and draws the two maps of colour."""

    metric = "eval/ab_l1"
    handler = ColorizeHandler

    def open_dataset(self) -> None:
        data = self.config.data
        self._train_pictures = RecordSet(self.dataset_dir, "train", families=PICTURES)
        held_out = RecordSet(self.dataset_dir, "val", families=PICTURES)
        self._pictures = Pictures(held_out, side=data.image_size, cache_mib=data.cache_mib // 4)

    def new_networks(self) -> dict[str, nn.Module]:
        model = self.config.model
        discriminator = PatchDiscriminator(
            channels=3, width=model.discriminator_width, layers=model.discriminator_layers, norm=NORMS[model.norm]
        )
        return {GENERATOR: _unet(model), DISCRIMINATOR: discriminator}

    def train_batches(self) -> PictureBatches:
        data = self.config.data
        pictures = Pictures(self._train_pictures, side=data.load_size, cache_mib=data.cache_mib)
        return PictureBatches(pictures, data, seed=self.config.runtime.seed, make=_alone)

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        light, colour = to_lab(batch.to(placement).b)
        return Batch(*(maps.to(memory_format=placement.memory_format) for maps in (light, colour)))

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        scores: dict[str, list[Tensor]] = {f"eval/{name}": [] for name in ("ab_l1", "psnr", "colourfulness")}
        with in_eval_mode(state.modules[GENERATOR]) as generator, torch.inference_mode():
            for places in self.chunks(min(len(self._pictures), self.config.eval.num_images)):
                light, colour, target = self._held(places, placement)
                found = called(generator, placement, light)
                drawn = from_lab(light, found)
                shown = figures.colourfulness(drawn) / figures.colourfulness(target).clamp(min=_LEAST_COLOUR)
                measured = (figures.l1(found, colour), figures.psnr(drawn, target), shown)
                for name, values in zip(scores, measured, strict=True):
                    scores[name].append(values.cpu())
        return {name: figures.mean(values) for name, values in scores.items()}

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        places = np.asarray(spread(len(self._pictures), self.config.eval.num_samples))
        with in_eval_mode(state.modules[GENERATOR]) as generator, torch.inference_mode():
            light, colour, target = self._held(places, placement)
            drawn = from_lab(light, called(generator, placement, light))
        columns = {"input": from_lab(light, torch.zeros_like(colour)), "output": drawn, "target": target}
        return [Picture(name="samples", png=compared(columns))]

    def golden_requests(self, count: int) -> list[Request]:
        records = self._pictures.records
        return [(records.read(place), {}) for place in spread(len(records), count)]

    def serving_spec(self) -> ServingSpec:
        side = self.config.data.image_size
        return ServingSpec(input_shape=(1, side, side), constants={})

    @classmethod
    def load_serving_module(cls, config: Pix2pixConfig, spec: ServingSpec) -> nn.Module:
        return _unet(config.model)

    def _held(self, places: Indices, placement: Placement) -> tuple[Tensor, Tensor, Tensor]:
        """Return lightness, colour and the pictures themselves of held-out ones."""
        target = placed(to_tanh(self._pictures.gather(places)), placement)
        light, colour = to_lab(target)
        return placed(light, placement), placed(colour, placement), target


def _alone(pictures: Tensor, generator: torch.Generator) -> Batch:
    """Return pictures as their own targets: what is seen of them is made where the step is."""
    del generator
    return Batch(pictures[:, :0], pictures)


def _unet(model: UnetModel) -> Unet:
    return Unet(
        width=model.width, depth=model.depth, norm=NORMS[model.norm], dropout=model.dropout, channels=1, drawn=2
    )
