"""Configs of the segmentation recipes. Torch-free: the API server validates with these.

The number of classes is not here: it comes from the dataset, background included.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import TORCHVISION, WEIGHTS, Limits, Origin, Section
from workers.families.sections import Optim, Schedule, SupervisedConfig, Warp

Width = Annotated[int, Field(ge=4, le=4096)]
_VGG16 = tuple(f"{TORCHVISION}:VGG16_Weights.{name}" for name in ("IMAGENET1K_V1", "DEFAULT"))
"""Not IMAGENET1K_FEATURES, which were made for inputs of another scale."""
STRIDE = 32
"""Input pixels that one cell of the coarsest map spans, for every network here."""


class Data(Section):
    """What one batch is made of."""

    image_size: int = Field(480, ge=32, le=2048, description="Side in pixels of the square every image is fitted into.")
    batch_size: int = Field(16, ge=1, le=1024, description="Images in one step.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded images and masks; those that do not fit are decoded at every use."
    )

    @model_validator(mode="after")
    def _size_divides(self) -> Self:
        if self.image_size % STRIDE:
            near = max(STRIDE, round(self.image_size / STRIDE) * STRIDE)
            raise ValueError(f"data.image_size must be a multiple of {STRIDE}; use {near}")
        return self


class Eval(Section):
    """How held-out images are scored, at their own size."""

    batch_size: int = Field(16, ge=1, le=1024, description="Images in one forward of the evaluation.")
    num_samples: int = Field(6, ge=1, le=64, description="Held-out images in a sample picture.")


class SegmentationConfig(SupervisedConfig):
    """What the segmentation recipes share."""

    data: Data = Data()
    optim: Optim = Optim(lr=0.01, weight_decay=1e-4)
    schedule: Schedule = Schedule(name="poly")
    augment: Warp = Warp(scale=(0.5, 2.0), translate=0.25, exposure=1.4, saturation=1.4)
    eval: Eval = Eval()
    limits: Limits = Limits(
        max_steps=60_000, checkpoint_every_steps=1000, evaluate_every_steps=2000, sample_every_steps=2000
    )

    def max_processes(self) -> int:
        return self.data.batch_size


class FcnModel(Section):
    """The network: a VGG body turned into convolutions, scored at one to three resolutions."""

    variant: Literal["32s", "16s", "8s"] = Field(
        "8s", description="Stride of the finest map that is scored: 32s has no skip, 16s adds pool4, 8s pool3 as well."
    )
    body: Literal["vgg16", "small"] = Field("vgg16", description="vgg16: the paper's; small: five stages of `stages`.")
    stages: tuple[tuple[Width, Annotated[int, Field(ge=1, le=8)]], ...] = Field(
        ((16, 2), (32, 2), (48, 2), (64, 2), (64, 1)),
        min_length=5,
        max_length=5,
        description="Channels and convolutions of each stage of the small body.",
    )
    hidden: int = Field(4096, ge=8, le=8192, description="Channels of the two layers after the body (fc6, fc7).")
    style: Literal["modern", "caffe"] = Field(
        "modern", description="caffe: padding 100 and crops, to load original weights; modern: no wasted border."
    )
    batch_norm: bool = Field(False, description="Normalise every convolution of the body; the paper did not.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of whole maps after each hidden layer.")


class FcnConfig(SegmentationConfig):
    """FCN: a classifier made convolutional, with skips (Long et al. 2015).

    It starts from a coarser one, from torchvision's VGG-16, or from uploaded weights, such as the original ones.
    """

    SOURCES: ClassVar[tuple[str, ...]] = ("segmentation/fcn", WEIGHTS, TORCHVISION)

    model: FcnModel = FcnModel()

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": 64, "batch_size": 16},
            "model": {"body": "small", "hidden": 64, "batch_norm": True, "dropout": 0.0},
            "optim": {"name": "adamw", "lr": 6e-3, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 20},
            "augment": {"scale": (1.0, 1.0), "translate": 0.0, "exposure": 1.0, "saturation": 1.0},
            "eval": {"batch_size": 50},
            "limits": {
                "max_steps": 240,
                "checkpoint_every_steps": 80,
                "evaluate_every_steps": 120,
                "sample_every_steps": 120,
            },
        },
    }

    def adopt(self, origin: Origin) -> Self:
        if origin.kind == TORCHVISION and origin.name not in _VGG16:
            raise ValueError(f"{origin.name} is not what this network's body is made of: use {_VGG16[0]}")
        if origin.kind == TORCHVISION and (self.model.body != "vgg16" or self.model.batch_norm):
            raise ValueError(f"{origin.name} fits model.body 'vgg16' without model.batch_norm alone: set both so")
        return self


class ReadyModel(Section):
    """A network of torchvision."""

    name: Literal[
        "fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large",
    ] = Field("deeplabv3_resnet50", description="Which network.")  # fmt: skip
    pretrained: Literal["none", "backbone", "all"] = Field(
        "none", description="backbone: ImageNet weights of the body; all: also the head's, except its last layer."
    )
    aux_weight: float = Field(
        0.5, ge=0, le=1, description="Weight of the auxiliary head's loss; 0 leaves that head out. LR-ASPP has none."
    )
    norm_momentum: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share that a batch has in the running statistics of batch normalisation; empty: torchvision's, which "
        "for MobileNet is 0.01, too little for a short training.",
    )


class ReadyConfig(SegmentationConfig):
    """FCN, DeepLab v3 and LR-ASPP on bodies of torchvision."""

    model: ReadyModel = ReadyModel()

    @model_validator(mode="after")
    def _batch_can_be_normalised(self) -> Self:
        if self.model.name.startswith("deeplabv3") and self.data.batch_size < 2:
            raise ValueError("data.batch_size must be at least 2: DeepLab normalises one value an image over the batch")
        return self

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": 64, "batch_size": 16},
            "model": {"name": "lraspp_mobilenet_v3_large", "norm_momentum": 0.1},
            "optim": {"name": "adamw", "lr": 5e-3, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 20},
            "augment": {"scale": (1.0, 1.0), "translate": 0.0, "exposure": 1.0, "saturation": 1.0},
            "eval": {"batch_size": 50},
            "limits": {
                "max_steps": 300,
                "checkpoint_every_steps": 100,
                "evaluate_every_steps": 150,
                "sample_every_steps": 150,
            },
        },
    }
