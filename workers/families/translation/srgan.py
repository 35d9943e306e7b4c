"""Super-resolution: small pictures made large, by pixels first and by a game after (Ledig et al. 2017)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.engine import ema
from workers.families.adversarial import discriminator_loss, frozen, generator_loss
from workers.families.base import Picture, Placement, ServingSpec, Source, SourceUnfit, TrainState
from workers.families.config import TORCHVISION
from workers.families.images import from_tanh, to_tanh
from workers.families.records import RecordSet
from workers.families.supervised import in_eval_mode, spread
from workers.families.transfer import copy_weights
from workers.families.translation import figures
from workers.families.translation.crops import CropBatches, WholePictures, middle
from workers.families.translation.data import Batch
from workers.families.translation.draw import compared
from workers.families.translation.pictures_data import PICTURES
from workers.families.translation.recipe import DISCRIMINATOR, GENERATOR, Request, TranslationRecipe, called, placed
from workers.families.translation.srgan_config import SrganConfig, SrganModel
from workers.families.translation.srgan_handler import SrganHandler
from workers.families.translation.srgan_networks import SrDiscriminator, SrResnet, VggFeatures, enlarged
from workers.families.translation.tiles import by_tiles, shrunk

FEATURES = "features"
_LUMA = (0.299, 0.587, 0.114)
_LEAST = 16
"""Pixels of a held-out picture's side, so that the window of SSIM fits in; smaller ones are enlarged."""
_SHOWN = 128
"""Pixels of a sample's side: what a whole picture gains nobody sees."""


class Srgan(TranslationRecipe[SrganConfig]):
    """Section 2: SRResNet, trained by pixels, and then by features of VGG-19 and against a discriminator.

    Of the paper's losses it takes those of XPixelGroup/BasicSR, which are absolute differences, as are its rates and
    the average of weights that is served. Without VGG-19's weights the game and the pixels alone count.
    """

    metric = "eval/psnr"
    metric_mode: ClassVar[str] = "max"
    handler = SrganHandler

    def __init__(self, config: SrganConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self._train = RecordSet(dataset_dir, "train", families=PICTURES)
        held_out = RecordSet(dataset_dir, "val", families=PICTURES)
        self._held_out = WholePictures(held_out, least=_LEAST, cache_mib=config.data.cache_mib // 4)

    def new_networks(self) -> dict[str, nn.Module]:
        model, data = self.config.model, self.config.data
        networks: dict[str, nn.Module] = {GENERATOR: _resnet(model)}
        if self.config.loss.game:
            networks[DISCRIMINATOR] = SrDiscriminator(
                side=data.image_size, width=model.discriminator_width, hidden=model.discriminator_hidden
            )
        if model.features != "none":
            networks[FEATURES] = VggFeatures()
        return networks

    def build(self, placement: Placement) -> TrainState:
        state = super().build(placement)
        if self.config.average:
            state.ema[GENERATOR] = ema.average_of(state.modules[GENERATOR])
        if FEATURES in state.modules:
            state.tensors["has_features"] = torch.zeros((), dtype=torch.bool)
        return state

    def load_source(self, state: TrainState, source: Source) -> None:
        if source.origin.kind == TORCHVISION:
            features = state.modules[FEATURES]
            assert isinstance(features, VggFeatures)
            features.load(source.tensors, name=source.origin.name)
            state.tensors["has_features"].fill_(True)
            return
        own = source.part(GENERATOR) if source.origin.kind == "checkpoint" else source.tensors
        copy_weights(state.modules[GENERATOR].state_dict(), own, name=source.origin.name)

    def notices(self) -> list[str]:
        loss = self.config.loss
        if not (loss.game and loss.perceptual) or self.config.model.features != "none":
            return []
        start = f"start the job from {TORCHVISION}:VGG19_Weights.IMAGENET1K_V1"
        return [
            f"there are no weights of VGG-19 to compare features with, so loss.perceptual is skipped; {start} for it"
        ]

    def train_batches(self) -> CropBatches:
        data = self.config.data
        pictures = WholePictures(self._train, least=data.image_size, cache_mib=data.cache_mib)
        return CropBatches(pictures, data, scale=self.config.model.scale, seed=self.config.runtime.seed)

    def is_playing(self, step: int) -> bool:
        """Return whether the update after `step` finished ones is one of the game."""
        return self.config.loss.game > 0 and step >= self.config.pretrain_steps

    def set_rates(self, state: TrainState) -> None:
        super().set_rates(state)
        if self.is_playing(state.step):
            for group in state.optimizers[GENERATOR].param_groups:
                group["lr"] *= self.config.optim.lr_game / self.config.optim.lr

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        self.set_rates(state)
        fake = called(state.modules[GENERATOR], placement, batch.a)
        pixels = (fake - batch.b).abs().mean()
        if self.is_playing(state.step):
            scalars = self._play(state, fake, batch.b, pixels, placement)
        else:
            self.update(state, GENERATOR, pixels)
            scalars = {"train/loss": pixels.detach()}
        ema.follow(state, GENERATOR, decay=self.config.average)
        return {**scalars, "train/l1": pixels.detach()}

    def _play(
        self, state: TrainState, fake: Tensor, real: Tensor, pixels: Tensor, placement: Placement
    ) -> dict[str, Tensor]:
        loss, discriminator = self.config.loss, state.modules[DISCRIMINATOR]
        logits = [called(discriminator, placement, images) for images in (real, fake.detach())]
        against = discriminator_loss("nonsat", *logits)
        self.update(state, DISCRIMINATOR, against)
        with frozen(discriminator):
            game = generator_loss("nonsat", called(discriminator, placement, fake))
            parts = {"game": loss.game * game, "pixels": loss.pixels * pixels}
            if (features := self._features(state)) is not None:
                seen, wanted = called(features, placement, fake), called(features, placement, real)
                parts["perceptual"] = loss.perceptual * (seen - wanted).abs().mean()
            total = torch.stack(list(parts.values())).sum()
            self.update(state, GENERATOR, total)
        return {
            "train/loss": total.detach(),
            "train/loss_discriminator": against.detach(),
            **{f"train/loss_{name}": part.detach() for name, part in parts.items()},
        }

    def _features(self, state: TrainState) -> nn.Module | None:
        if FEATURES not in state.modules or not self.config.loss.perceptual:
            return None
        if not state.tensors["has_features"]:
            text = "model.features is set by the weights that a job starts from: start it from torchvision's VGG-19"
            raise SourceUnfit(f"{text}, or leave it out")
        return state.modules[FEATURES]

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        count = min(len(self._held_out), self.config.eval.num_images)
        with in_eval_mode(self.serving_module(state)) as network, torch.inference_mode():
            scores = [self._scored(place, network, placement) for place in range(count)]
        gains = [one["gain"] for one in scores]
        means = {f"eval/{name}": sum(one[name] for one in scores) / len(scores) for name in scores[0]}
        return {**means, "eval/least_gain": min(gains)}

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        scale = self.config.model.scale
        shown: dict[str, list[Tensor]] = {"small": [], "bicubic": [], "output": [], "target": []}
        with in_eval_mode(self.serving_module(state)) as network, torch.inference_mode():
            for place in spread(len(self._held_out), self.config.eval.num_samples):
                target, small = self._held(place)
                part = middle(small, _SHOWN // scale)
                shown["small"].append(functional.interpolate(part[None], scale_factor=scale, mode="nearest-exact")[0])
                shown["bicubic"].append(enlarged(part[None], scale)[0])
                shown["output"].append(self._enlarged(part, network, placement))
                top, left = (
                    scale * ((length - side) // 2) for length, side in zip(small.shape[1:], part.shape[1:], strict=True)
                )
                height, width = (scale * side for side in part.shape[1:])
                shown["target"].append(target[:, top : top + height, left : left + width])
        return [Picture(name="samples", png=compared(shown))]

    def golden_requests(self, count: int) -> list[Request]:
        records = self._held_out.records
        return [(records.read(place), {}) for place in spread(len(records), count)]

    def serving_module(self, state: TrainState) -> nn.Module:
        return state.ema.get(GENERATOR, state.modules[GENERATOR])

    def serving_spec(self) -> ServingSpec:
        side = self.config.eval.tile_size
        constants = {"scale": self.config.model.scale, "margin": self.config.eval.margin}
        return ServingSpec(input_shape=(3, side, side), constants=constants)

    @classmethod
    def load_serving_module(cls, config: SrganConfig, spec: ServingSpec) -> nn.Module:
        return _resnet(config.model)

    def _held(self, place: int) -> tuple[Tensor, Tensor]:
        """Return a held-out picture and the same made small, (3, H, W) of the range of Tanh."""
        scale = self.config.model.scale
        picture = self._held_out.get(place)
        height, width = (length // scale * scale for length in picture.shape[-2:])
        whole = picture[:, :height, :width]
        return to_tanh(whole), to_tanh(shrunk(whole[None], scale)[0])

    def _enlarged(self, small: Tensor, network: nn.Module, placement: Placement) -> Tensor:
        """Return a picture enlarged as it is served, of pixels that can be stored."""
        evaluation = self.config.eval

        def enlarge(tiles: Tensor) -> Tensor:
            starts = range(0, len(tiles), evaluation.batch_size)
            chunks = (placed(tiles[start : start + evaluation.batch_size], placement) for start in starts)
            return torch.cat([called(network, placement, chunk).cpu() for chunk in chunks])

        drawn = by_tiles(
            small, enlarge, tile=evaluation.tile_size, margin=evaluation.margin, scale=self.config.model.scale
        )
        return to_tanh(from_tanh(drawn))

    def _scored(self, place: int, network: nn.Module, placement: Placement) -> dict[str, float]:
        """Return the figures of one held-out picture; its border, where a network sees too little, does not count."""
        scale = self.config.model.scale
        target, small = self._held(place)
        plain = to_tanh(from_tanh(enlarged(small[None], scale)[0]))
        found = self._enlarged(small, network, placement)
        target, plain, found = (within_border(one, scale)[None] for one in (target, plain, found))
        psnr = float(figures.psnr(found, target))
        luma = [_luma(one) for one in (found, target)]
        return {
            "psnr": psnr,
            "psnr_y": float(figures.psnr(*luma)),
            "ssim": float(figures.ssim(*luma)),
            "gain": psnr - float(figures.psnr(plain, target)),
            "detail": _energy(found) / max(_energy(target), 1e-9),
        }


def within_border(image: Tensor, border: int) -> Tensor:
    """Return a picture (C, H, W) without its border, where it has more than that."""
    if min(image.shape[-2:]) <= 4 * border:
        return image
    return image[:, border:-border, border:-border]


def _luma(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, device=images.device).reshape(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _energy(images: Tensor) -> float:
    """Return the mean squared difference of neighbours: how much detail pictures (N, C, H, W) show."""
    return sum(float(images.diff(dim=dim).double().square().mean()) for dim in (-2, -1))


def _resnet(model: SrganModel) -> SrResnet:
    return SrResnet(
        scale=model.scale,
        width=model.width,
        blocks=model.blocks,
        has_norm=model.norm == "batch",
        has_base=model.base == "bicubic",
    )
