"""Configs of the translation recipes that make their own inputs from pictures. Torch-free: the API server validates with these.

As everywhere in this family, images have the range of Tanh, and so have all errors of pixels.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import Limits, Section, preset_limits
from workers.families.translation.config import (
    TINY_UNET,
    Data,
    Decay,
    Optim,
    Pix2pixConfig,
    TranslationConfig,
    Weight,
    tiny_preset,
)

SMALLEST = 4
"""Side of the maps that context encoders squeeze into one vector."""


class Hole(Section):
    """What is hidden of a picture."""

    kind: Literal["centre", "random"] = Field(
        "centre",
        description="centre: the square of half the side, and only that can be filled when it is served; random: regions of "
        "any shape, and a served model fills whatever it is told.",
    )
    share: float = Field(
        0.25, gt=0, le=0.75, description="Share of the picture that random regions hide; the centre hides a quarter."
    )
    overlap: int = Field(
        4,
        ge=0,
        le=32,
        description="Pixels around what is hidden that are drawn, too, though they are seen: where the fill meets the rest.",
    )


class InpaintModel(Section):
    """A context encoder and its discriminator."""

    width: int = Field(
        64, ge=4, le=512, description="Maps of the first layers; later ones have up to eight times more."
    )
    bottleneck: int = Field(
        4000, ge=8, le=16_384, description="Length of the vector that all of a picture goes through."
    )
    discriminator_width: int = Field(64, ge=1, le=512, description="Maps of the discriminator's first layer.")


class InpaintLoss(Section):
    """The distance to what was hidden, and the game that makes it sharp."""

    reconstruction: Weight = Field(0.999, description="Weight of the mean squared difference.")
    overlap: Weight = Field(10.0, description="What the difference counts where the fill overlaps what is seen.")
    game: Weight = Field(0.001, description="Weight of the game; 0: none, and the fill is a blurred mean.")


class InpaintConfig(TranslationConfig):
    """Context encoder: fills what is missing of a picture (Pathak et al. 2016)."""

    data: Data = Data(image_size=128, load_size=146, batch_size=64)
    hole: Hole = Hole()
    model: InpaintModel = InpaintModel()
    loss: InpaintLoss = InpaintLoss()
    optim: Optim = Optim(lr=2e-3, lr_discriminator=2e-4)
    schedule: Decay = Decay(decay_from=1.0)
    limits: Limits = Limits(
        max_steps=100_000, checkpoint_every_steps=2000, evaluate_every_steps=5000, sample_every_steps=2000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": 32, "load_size": 32, "batch_size": 32, "flip": 0.0},
            "hole": {"overlap": 0},
            "model": {"width": 16, "bottleneck": 128, "discriminator_width": 16},
            "schedule": {"decay_from": 0.5},
            "eval": {"batch_size": 50},
            "limits": preset_limits(450),
        },
        "random": {"hole": {"kind": "random"}},
    }

    @model_validator(mode="after")
    def _picture_can_be_squeezed(self) -> Self:
        side = self.data.image_size
        if side & (side - 1) or side < 4 * SMALLEST:
            near = max(4 * SMALLEST, 1 << (side.bit_length() - 1))
            raise ValueError(f"data.image_size must be a power of two from {4 * SMALLEST} on; use {near}")
        if self.data.batch_size < 2:
            raise ValueError("data.batch_size must be at least 2: the vector between is normalised over the batch")
        if self.hole.kind == "centre" and self.hole.overlap >= side // 8:
            raise ValueError(
                f"hole.overlap must be below an eighth of data.image_size, {side // 8}; use {max(0, side // 32)}"
            )
        return self

    def max_processes(self) -> int:
        return self.data.batch_size


class ColorizeConfig(Pix2pixConfig):
    """pix2pix from lightness to colour (Isola et al. 2017, section 4): grey pictures in their likely colours."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": tiny_preset(450, {"batch_size": 16, "flip": 0.0}, model={**TINY_UNET, "dropout": 0.0}),
    }
