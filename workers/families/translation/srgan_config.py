"""Config of super-resolution. Torch-free: the API server validates with it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import TORCHVISION, Limits, Origin, Section, preset_limits
from workers.families.translation.config import Decay, Eval, Optim, PlayersConfig, Weight

_RECIPE = "translation/srgan"
_FEATURES = tuple(f"{TORCHVISION}:VGG19_Weights.{name}" for name in ("IMAGENET1K_V1", "DEFAULT"))
_STRIDES = 16
"""Pixels of the crop that one cell of the discriminator's smallest maps spans."""


class Crops(Section):
    """What one batch is made of: crops of pictures, and the same made small."""

    image_size: int = Field(
        128, ge=16, le=1024, description="Side in pixels of the large crops; the small follow from it."
    )
    batch_size: int = Field(16, ge=1, le=1024, description="Crops in one update.")
    turn: bool = Field(True, description="Lay each crop in one of its eight ways, mirrored or turned by quarters.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded pictures; those that do not fit are decoded at every use."
    )


class SrganModel(Section):
    """SRResNet, and the discriminator of SRGAN."""

    scale: Literal[2, 4, 8] = Field(4, description="How many times as wide and high a picture becomes.")
    width: int = Field(64, ge=4, le=512, description="Maps of the generator.")
    blocks: int = Field(16, ge=1, le=64, description="Residual blocks of the generator.")
    norm: Literal["batch", "none"] = Field(
        "batch", description="batch: as in the paper; none: later work found networks without it better."
    )
    base: Literal["none", "bicubic"] = Field(
        "none", description="none: as in the paper; bicubic: the network draws what bicubic interpolation lacks."
    )
    discriminator_width: int = Field(64, ge=4, le=512, description="Maps of the discriminator's first layers.")
    discriminator_hidden: int = Field(1024, ge=8, le=8192, description="Width of its layer before the last.")
    features: Literal["none", "vgg19"] = Field(
        "none",
        description="What compares pictures beside pixels. Set by what the job starts from: torchvision's VGG-19.",
    )


class SrganLoss(Section):
    """What counts once the game has begun; before it, it is the mean absolute difference of pixels alone."""

    pixels: Weight = Field(0.01, description="Weight of the mean absolute difference of pixels.")
    perceptual: Weight = Field(1.0, description="Weight of the mean absolute difference of VGG-19's features conv5_4.")
    game: Weight = Field(0.005, description="Weight of the game against the discriminator; 0: SRResNet alone.")


class SrganOptim(Optim):
    """Adam for both players."""

    lr: float = Field(2e-4, gt=0, le=10, description="Peak learning rate of the generator before the game.")
    lr_game: float = Field(1e-4, gt=0, le=10, description="Peak learning rate of the generator in the game.")
    lr_discriminator: float | None = Field(
        1e-4, gt=0, le=10, description="Peak learning rate of the discriminator; empty: optim.lr."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Momentum.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Memory of squared gradients.")


class SrganEval(Eval):
    """How held-out pictures are scored: made small, enlarged in tiles as served ones are, and compared."""

    batch_size: int = Field(8, ge=1, le=1024, description="Tiles in one forward of the evaluation.")
    num_images: int = Field(100, ge=1, le=1_000_000, description="Held-out pictures that are scored, at most.")
    tile_size: int = Field(96, ge=16, le=512, description="Side of the small squares that pictures are enlarged in.")
    margin: int = Field(16, ge=0, le=128, description="Pixels of a tile's border that only help to draw its middle.")

    @model_validator(mode="after")
    def _tiles_have_a_middle(self) -> Self:
        if self.tile_size - 2 * self.margin < 8:
            raise ValueError(
                f"eval.margin leaves {self.tile_size - 2 * self.margin} pixels of eval.tile_size {self.tile_size}: use "
                f"{self.tile_size // 6}"
            )
        return self


class SrganConfig(PlayersConfig):
    """Super-resolution: SRResNet, and SRGAN once the game begins (Ledig et al. 2017).

    It starts from torchvision's VGG-19, by whose features it compares, or goes on from a model of its own.
    """

    SOURCES: ClassVar[tuple[str, ...]] = (_RECIPE, TORCHVISION)

    data: Crops = Crops()
    model: SrganModel = SrganModel()
    loss: SrganLoss = SrganLoss()
    optim: SrganOptim = SrganOptim()
    schedule: Decay = Decay(decay_from=1.0)
    eval: SrganEval = SrganEval()
    pretrain_steps: int = Field(
        1_000_000,
        ge=0,
        description="Updates by pixels alone before the game; 0 where it starts from a model of its own.",
    )
    average: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="Share that the average of the generator's weights, which is served, keeps at an update.",
    )
    limits: Limits = Limits(
        max_steps=1_400_000, checkpoint_every_steps=5000, evaluate_every_steps=20_000, sample_every_steps=10_000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": 48, "batch_size": 8},
            "model": {"scale": 2, "width": 20, "blocks": 4, "norm": "none", "base": "bicubic", "discriminator_width": 16,
                      "discriminator_hidden": 64},
            "loss": {"perceptual": 0.0, "game": 0.0},
            "optim": {"lr": 1.5e-3, "lr_game": 2e-4, "lr_discriminator": 5e-4},
            "schedule": {"decay_from": 0.5},
            "eval": {"tile_size": 96, "margin": 8},
            "average": 0.99,
            "limits": preset_limits(600, evaluations=2),
        },
        "resnet": {"loss": {"perceptual": 0.0, "game": 0.0}, "limits": {"max_steps": 1_000_000}},
    }  # fmt: skip

    @model_validator(mode="after")
    def _crops_fit(self) -> Self:
        step = max(self.model.scale, _STRIDES if self.loss.game else 1)
        if self.data.image_size % step:
            near = max(step, round(self.data.image_size / step) * step)
            raise ValueError(f"data.image_size must be a multiple of {step}; use {near}")
        return self

    def adopt(self, origin: Origin) -> Self:
        if origin.kind == TORCHVISION:
            if origin.name not in _FEATURES:
                raise ValueError(f"{origin.name} is not what compares pictures here: use {_FEATURES[0]}")
            if not (self.loss.game and self.loss.perceptual):
                raise ValueError(f"{origin.name} has no effect without loss.game and loss.perceptual: set both above 0")
            return self.model_copy(update={"model": self.model.model_copy(update={"features": "vgg19"})})
        generator = {name: origin.config["model"][name] for name in ("scale", "width", "blocks", "norm", "base")}
        return self.model_validate({**self.model_dump(), "model": {**self.model.model_dump(), **generator}})

    def max_processes(self) -> int:
        return self.data.batch_size
