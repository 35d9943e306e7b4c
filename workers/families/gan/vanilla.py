"""The first GAN, fully connected: a Gaussian of points, small images, and the lesson's 218 x 178 faces."""

from __future__ import annotations

import torch

from services.core.errors import DatasetInvalid
from workers.families.base import Picture, Placement, TrainState
from workers.families.gan.config import CelebaFcConfig, VanillaConfig
from workers.families.gan.data import TrainBatches
from workers.families.gan.discriminators import Discriminator, fc_discriminator
from workers.families.gan.generators import POINT_SIZE
from workers.families.gan.points import point_figures, scatter
from workers.families.gan.recipe import GanRecipe
from workers.families.records import read_points
from workers.families.supervised import in_eval_mode


class Vanilla(GanRecipe[VanillaConfig]):
    """Goodfellow et al. (2014) on points, if the config says so, or images."""

    def open_dataset(self) -> None:
        if not self._makes_points:
            super().open_dataset()
            return
        self.metric = "eval/covariance_error"
        self.classes, self._labels = (), None
        self._points, self._held_out_points = (read_points(self.dataset_dir, split) for split in ("train", "val"))
        if self._points.shape[1] != POINT_SIZE:
            columns = self._points.shape[1]
            raise DatasetInvalid(f"the points have {columns} columns; this recipe reads points of {POINT_SIZE}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (POINT_SIZE,) if self._makes_points else super().shape

    def new_discriminator(self) -> Discriminator:
        return fc_discriminator(self.config.model, self.shape)

    def train_batches(self) -> TrainBatches:
        return TrainBatches(self._points, self.config) if self._makes_points else super().train_batches()

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        if not self._makes_points:
            return super().evaluate(state, placement)
        with in_eval_mode(self.served_generator(state)) as generator, torch.inference_mode():
            fake = torch.cat([points.cpu() for points, _ in self.drawn(generator, placement)])
        return point_figures(self._held_out_points, fake)

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        if not self._makes_points:
            return super().sample(state, placement)
        real = self._held_out_points[:500]
        with in_eval_mode(self.served_generator(state)) as generator, torch.inference_mode():
            fake = torch.cat([points.cpu() for points, _ in self.drawn(generator, placement, count=500)])
        return [Picture(name="samples", png=scatter(real, fake))]

    @property
    def _makes_points(self) -> bool:
        return self.config.data.source == "points"


class CelebaFc(GanRecipe[CelebaFcConfig]):
    """The lesson in memory: every pixel is a sum over all units."""

    def new_discriminator(self) -> Discriminator:
        return fc_discriminator(self.config.model, self.shape)
