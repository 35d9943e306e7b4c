"""Configs of the style recipes. Torch-free: the API server validates with these.

Of a dataset of two domains the first is content and the second is style. Pictures are compared in the features of a
frozen VGG, whose weights a job is given by what it starts from.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import TORCHVISION, WEIGHTS, Limits, Origin, Section
from workers.families.sections import Fraction, Optim, Schedule, SupervisedConfig

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions of each stage."""
PUBLISHED = {"vgg16": "VGG16_Weights", "vgg19": "VGG19_Weights"}
"""What torchvision calls their weights."""
STRIDE = 4
"""Input pixels that one place of the transform network's innermost maps spans."""
_LAYER = re.compile(r"relu([1-5])_([1-4])")

Layers = Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
Weight = Annotated[float, Field(ge=0, le=1e15)]


def layer_place(name: str) -> tuple[int, int]:
    """Return stage and number of a convolution by the name of its output, `relu4_2`, counted from 1.

    Raises:
        ValueError: not such a name.
    """
    match = _LAYER.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r:.50} is no layer: use names such as relu1_1 or relu4_2")
    return int(match[1]), int(match[2])


class Features(Section):
    """The frozen network in whose features pictures are compared: a VGG (Simonyan and Zisserman 2015)."""

    network: Literal["vgg16", "vgg19"] = Field("vgg16", description="Which VGG, as torchvision builds it.")
    content: Layers = Field(("relu2_2",), description="Layers whose features are the content, by their ReLU.")
    style: Layers = Field(
        ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
        description="Layers whose Gram matrices, correlations of channels, are the style, by their ReLU.",
    )
    width: float = Field(
        1.0,
        ge=0.1,
        le=1,
        description="Share of the channels of each layer, for quick trials with random weights; given ones make it 1.",
    )
    pool: Literal["max", "average"] = Field(
        "max", description="average: smoother pictures; doubled, so that the features keep their size."
    )
    padding: Literal["zeros", "replicate"] = Field(
        "zeros", description="What the first layer sees beyond the border; replicate leaves no frame in the picture."
    )
    weights: Literal["random", "given"] = Field(
        "random",
        description="Filled in by init_from: given are those that the job starts from, such as"
        " torchvision:VGG19_Weights.DEFAULT. Random ones, always the same, prove the losses and give no looks.",
    )

    @model_validator(mode="after")
    def _layers_are_of_the_network(self) -> Self:
        stages = CONVOLUTIONS[self.network]
        for field, names in (("content", self.content), ("style", self.style)):
            for name in names:
                stage, number = layer_place(name)
                if number > stages[stage - 1]:
                    last = f"relu{stage}_{stages[stage - 1]}"
                    raise ValueError(f"features.{field} has {name}, but stage {stage} of {self.network} ends in {last}")
            if len(set(names)) < len(names):
                raise ValueError(f"features.{field} names a layer twice")
        return self


class Loss(Section):
    """What is minimised: the weighted sum of three terms."""

    content: Weight = Field(1e5, description="Weight of the mean squared difference of the content's features.")
    style: Weight = Field(1e10, description="Weight of the mean squared difference of Gram matrices, summed by layer.")
    tv: Weight = Field(0.0, description="Weight of the total variation, which smooths the picture.")

    @model_validator(mode="after")
    def _something_is_minimised(self) -> Self:
        if not (self.content or self.style or self.tv):
            raise ValueError("loss.content, loss.style and loss.tv are all 0: give one of them a weight")
        return self


class StyleConfig(SupervisedConfig):
    """What the style recipes share. They start from weights of their VGG: torchvision's, or uploaded ones."""

    SOURCES: ClassVar[tuple[str, ...]] = (WEIGHTS, TORCHVISION)

    features: Features = Features()
    loss: Loss = Loss()

    def adopt(self, origin: Origin) -> Self:
        wanted = PUBLISHED[self.features.network]
        if origin.kind == TORCHVISION and not origin.name.startswith(f"{TORCHVISION}:{wanted}."):
            raise ValueError(
                f"{origin.name} is not of features.network '{self.features.network}':"
                f" use {TORCHVISION}:{wanted}.DEFAULT, or set features.network"
            )
        features = self.features.model_copy(update={"weights": "given", "width": 1.0})
        return self.model_copy(update={"features": features})


class FastData(Section):
    """What one batch is made of."""

    image_size: int = Field(256, ge=32, le=1024, description="Side of the squares cut from content pictures.")
    batch_size: int = Field(4, ge=1, le=256, description="Content pictures in one step.")
    style_size: int = Field(256, ge=32, le=2048, description="Shorter side to which style pictures are scaled.")
    style_pictures: int = Field(
        16, ge=1, le=256, description="Style pictures whose Gram matrices are averaged, the first ones of the dataset."
    )
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded squares; those that do not fit are decoded at every use."
    )

    @model_validator(mode="after")
    def _size_divides(self) -> Self:
        if self.image_size % STRIDE:
            near = round(self.image_size / STRIDE) * STRIDE
            raise ValueError(f"data.image_size must be a multiple of {STRIDE}; use {near}")
        return self


class FastModel(Section):
    """The transform network (Johnson et al. 2016, supplementary table 1)."""

    width: int = Field(32, ge=4, le=256, description="Channels after the first layer; each halving doubles them.")
    residual_blocks: int = Field(5, ge=1, le=16, description="Residual blocks at a quarter of the size.")


class FastAugment(Section):
    """Random changes of content pictures."""

    flip: Fraction = Field(0.0, description="Chance of a mirror image.")


class FastEval(Section):
    """How held-out content pictures are judged."""

    batch_size: int = Field(4, ge=1, le=256, description="Pictures in one forward of the evaluation.")
    num_images: int = Field(64, ge=1, le=100_000, description="Held-out content pictures that are judged, at most.")
    num_samples: int = Field(6, ge=1, le=64, description="Held-out pictures in a sample sheet.")


class FastServing(Section):
    """What a deployment answers with."""

    max_side: int = Field(
        1024,
        ge=64,
        le=2048,
        description="Pictures are answered at their own size up to this longer side; larger ones are scaled down to it.",
    )


class FastConfig(StyleConfig):
    """Fast style transfer: a network that paints in one pass, taught by the losses of a VGG-16 (Johnson et al. 2016)."""

    data: FastData = FastData()
    model: FastModel = FastModel()
    optim: Optim = Optim(name="adamw", lr=1e-3, weight_decay=0.0)
    augment: FastAugment = FastAugment()
    eval: FastEval = FastEval()
    serving: FastServing = FastServing()
    limits: Limits = Limits(
        max_steps=40_000, checkpoint_every_steps=1000, evaluate_every_steps=2000, sample_every_steps=1000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "features": {"content": ("relu1_2",), "width": 0.25},
            "data": {"image_size": 48, "style_size": 64},
            "model": {"width": 16, "residual_blocks": 2},
            "loss": {"content": 1.0, "style": 200.0},
            "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.0},
            "schedule": {"name": "cosine", "warmup_steps": 5},
            "eval": {"num_images": 16},
            "limits": {
                "max_steps": 240,
                "checkpoint_every_steps": 80,
                "evaluate_every_steps": 120,
                "sample_every_steps": 80,
            },
        },
    }

    def max_processes(self) -> int:
        return self.data.batch_size


class GatysData(Section):
    """The pictures of one job."""

    image_size: int = Field(512, ge=32, le=2048, description="Longer side of the picture, and of style pictures.")
    batch_size: int = Field(
        1, ge=1, le=64, description="Content pictures that are redrawn side by side, the first ones of the dataset."
    )
    style_pictures: int = Field(
        16, ge=1, le=256, description="Style pictures whose Gram matrices are averaged, the first ones of the dataset."
    )


class GatysImage(Section):
    """Where the optimisation starts, and how it goes from coarse to fine."""

    noise: Fraction = Field(0.0, description="Share of white noise at the start: 0 the content picture, 1 noise alone.")
    scales: int = Field(
        1,
        ge=1,
        le=8,
        description="Sizes that are worked through, each larger than the one before by the square root of 2; every one"
        " goes on with the picture and the optimizer of the one before.",
    )


class GatysEval(Section):
    """What a picture is judged beside."""

    num_images: int = Field(
        8, ge=1, le=1000, description="Held-out pictures of either domain that it is compared with, at most."
    )


_GATYS_FEATURES: dict[str, Any] = {
    "network": "vgg19",
    "content": ("relu4_2",),
    "style": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
}


class GatysConfig(StyleConfig):
    """Style transfer as an optimisation: the picture is what is learned, by the losses of a VGG-19 (Gatys et al. 2016)."""

    features: Features = Features(**_GATYS_FEATURES)
    loss: Loss = Loss(content=1.0, style=1e4, tv=10.0)
    data: GatysData = GatysData()
    image: GatysImage = GatysImage()
    optim: Optim = Optim(name="adamw", lr=0.3, weight_decay=0.0)
    schedule: Schedule = Schedule(name="milestones", milestones=tuple((step, 0.8) for step in range(50, 500, 50)))
    eval: GatysEval = GatysEval()
    limits: Limits = Limits(max_steps=500, checkpoint_every_steps=100, evaluate_every_steps=100, sample_every_steps=50)

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "features": {**_GATYS_FEATURES, "width": 0.25},
            "data": {"image_size": 96},
            "loss": {"content": 1.0, "style": 2e3, "tv": 0.1},
            "image": {"noise": 0.1},
            "optim": {"name": "adamw", "lr": 0.05, "weight_decay": 0.0},
            "schedule": {"name": "constant", "milestones": ()},
            "limits": {
                "max_steps": 60,
                "checkpoint_every_steps": 20,
                "evaluate_every_steps": 20,
                "sample_every_steps": 20,
            },
        },
        "scales": {
            "features": {**_GATYS_FEATURES, "pool": "average", "padding": "replicate"},
            "image": {"scales": 4},
            "runtime": {"ema": 0.99},
        },
    }
