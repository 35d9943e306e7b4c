"""Configs of the detection recipes. Torch-free: the API server validates with these.

The number of classes is not here: it comes from the dataset.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import Limits, Section
from workers.families.sections import Fraction, Optim, Schedule, SupervisedConfig, Warp

Width = Annotated[int, Field(ge=4, le=4096)]
PositiveFraction = Annotated[float, Field(gt=0, le=1.5)]


class Data(Section):
    """What one batch is made of."""

    image_size: int = Field(448, ge=32, le=2048, description="Side in pixels of the square every image is fitted into.")
    batch_size: int = Field(64, ge=1, le=4096, description="Images in one step.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded images; those that do not fit are decoded at every use."
    )


class Augment(Warp):
    """Random changes of training images and their boxes."""

    min_visible: Fraction = Field(0.25, description="A box that keeps less of its area inside the frame is dropped.")


class Eval(Section):
    """How held-out images are scored; serving has its own thresholds."""

    batch_size: int = Field(64, ge=1, le=4096, description="Images in one forward of the evaluation.")
    score_threshold: Fraction = Field(
        0.01, description="Boxes below are not counted; low, so that the whole curve counts."
    )
    nms_iou: Fraction = Field(0.5, description="Boxes of one class that overlap more are one box.")
    max_detections: int = Field(100, ge=1, le=1000, description="Boxes kept in one image.")
    voc_11_point: bool = Field(False, description="Also report the 11-point average precision of PASCAL VOC 2007.")
    num_samples: int = Field(6, ge=1, le=64, description="Held-out images in a sample picture.")


class DetectionConfig(SupervisedConfig):
    """What the detection recipes share."""

    data: Data = Data()
    augment: Augment = Augment()
    eval: Eval = Eval()

    def max_processes(self) -> int:
        return self.data.batch_size


class SmallBody(Section):
    """An all-convolutional body: a strided stem, then stages that each halve the image."""

    stem_width: int = Field(16, ge=4, le=1024, description="Channels of the stem, which halves the image too.")
    stem_kernel: Literal[4, 6] = Field(4, description="Side of the stem's filters in pixels.")
    stages: tuple[tuple[Width, Annotated[int, Field(ge=1, le=8)]], ...] = Field(
        ((32, 1), (64, 2), (128, 2)), min_length=1, max_length=6, description="Channels and convolutions of each stage."
    )

    @property
    def stride(self) -> int:
        """Return how many input pixels one cell of the last stage spans."""
        return int(2 ** (1 + len(self.stages)))


class YoloV1Model(Section):
    """The network: the paper's, or a small all-convolutional one."""

    body: Literal["paper", "small"] = Field(
        "paper", description="paper: 24 convolutions and two linear layers; small: `small` and a convolutional head."
    )
    grid: int = Field(7, ge=2, le=64, description="Cells along a side (S of the paper).")
    boxes_per_cell: int = Field(2, ge=1, le=8, description="Boxes a cell predicts (B of the paper).")
    batch_norm: bool = Field(True, description="Normalise every convolution, as darknet does; the paper did not.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout before the last layer.")
    small: SmallBody = SmallBody()
    head_widths: tuple[Width, ...] = Field(
        (64,), max_length=8, description="Convolutions at the grid's resolution; small body only."
    )


class YoloV1Loss(Section):
    """Weights of the sum-squared loss."""

    coordinates: float = Field(5.0, gt=0, description="Weight of the boxes (lambda_coord of the paper).")
    no_object: float = Field(0.5, gt=0, description="Weight of the confidence of boxes without object (lambda_noobj).")
    classes: float = Field(1.0, gt=0, description="Weight of the class probabilities.")
    rescore: bool = Field(True, description="The confidence's target is the box's IoU, else 1.")


class YoloV1Config(DetectionConfig):
    """YOLO v1: one grid of boxes in one pass (Redmon et al. 2016)."""

    model: YoloV1Model = YoloV1Model()
    loss: YoloV1Loss = YoloV1Loss()
    # The schedule of darknet's yolov1.cfg, which trains from a body pretrained on ImageNet.
    schedule: Schedule = Schedule(
        name="milestones", milestones=((200, 2.5), (400, 2.0), (600, 2.0), (20_000, 0.1), (30_000, 0.1))
    )
    limits: Limits = Limits(
        max_steps=40_000, checkpoint_every_steps=1000, evaluate_every_steps=2000, sample_every_steps=2000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": 64, "batch_size": 32},
            "model": {
                "body": "small",
                "grid": 8,
                "dropout": 0.0,
                "small": {"stem_width": 24, "stages": ((48, 1), (96, 2))},
                "head_widths": (128,),
            },
            "optim": {"name": "adamw", "lr": 5e-3, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 50},
            "augment": {"scale": (0.9, 1.1), "translate": 0.1, "exposure": 1.2, "saturation": 1.2},
            "limits": {
                "max_steps": 720,
                "checkpoint_every_steps": 180,
                "evaluate_every_steps": 180,
                "sample_every_steps": 180,
            },
        },
        # Twice the updates on half the images learn digits better than a batch of 32 in the same time.
        "digits": {
            "data": {"image_size": 128, "batch_size": 16},
            "model": {
                "body": "small",
                "grid": 8,
                "dropout": 0.0,
                "small": {"stem_width": 32, "stem_kernel": 6, "stages": ((48, 1), (96, 1), (160, 1))},
                "head_widths": (256,),
            },
            "optim": {"name": "adamw", "lr": 5e-3, "beta2": 0.95, "weight_decay": 0.1},
            "schedule": {"name": "cosine", "warmup_steps": 50},
            "augment": {"translate": 0.1, "flip": 0.0, "min_visible": 0.5},
            "limits": {
                "max_steps": 1700,
                "checkpoint_every_steps": 200,
                "evaluate_every_steps": 400,
                "sample_every_steps": 400,
            },
        },
    }

    @model_validator(mode="after")
    def _image_divides_into_cells(self) -> Self:
        size, model = self.data.image_size, self.model
        if model.body == "paper":
            stride, remedy = 64, f"use {64 * model.grid}"
        else:
            stride, remedy = model.small.stride, f"use {model.small.stride * model.grid} or another model.small"
        if size != stride * model.grid:
            raise ValueError(
                f"data.image_size {size} gives the {model.body} body {size / stride:g} cells of {stride} px along a side, "
                f"not model.grid {model.grid}: {remedy}"
            )
        return self


class SsdModel(Section):
    """The network and its default boxes, one list entry for each feature map."""

    body: Literal["vgg16", "small"] = Field("vgg16", description="vgg16: SSD300 of the paper; small: `small`.")
    small: SmallBody = SmallBody()
    num_small_levels: int = Field(2, ge=1, le=6, description="How many of the small body's last stages predict.")
    sizes: tuple[tuple[PositiveFraction, ...], ...] = Field(
        ((0.07, 0.102), (0.15, 0.222), (0.33, 0.41), (0.51, 0.593), (0.69, 0.775), (0.87, 0.956)),
        description="Sizes of the default boxes of each level, as fractions of the image.",
    )
    ratios: tuple[tuple[Annotated[float, Field(gt=0.05, lt=20)], ...], ...] = Field(
        ((1, 2, 0.5), (1, 2, 0.5, 3, 1 / 3), (1, 2, 0.5, 3, 1 / 3), (1, 2, 0.5, 3, 1 / 3), (1, 2, 0.5), (1, 2, 0.5)),
        description="Width over height; a level has the first size with every ratio and the other sizes with the first.",
    )
    size_semantics: Literal["side", "area"] = Field(
        "side", description="What a size is a fraction of: the image's side, or its area."
    )

    @property
    def num_levels(self) -> int:
        """Return the number of feature maps that predict."""
        return 6 if self.body == "vgg16" else self.num_small_levels

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if self.body == "small" and self.num_small_levels > len(self.small.stages):
            raise ValueError(
                f"model.num_small_levels {self.num_small_levels} is more than the "
                f"{len(self.small.stages)} of model.small.stages"
            )
        for name, levels in (("sizes", self.sizes), ("ratios", self.ratios)):
            if len(levels) != self.num_levels or not all(levels):
                raise ValueError(f"model.{name} must have {self.num_levels} non-empty lists, one for each feature map")
        return self


class SsdLoss(Section):
    """Assignment and weights of the loss."""

    assign: Literal["bipartite", "best"] = Field(
        "bipartite",
        description="bipartite: every object gets a box of its own; best: each takes its best box, a later one wins.",
    )
    iou_threshold: float = Field(0.5, gt=0, lt=1, description="Free default boxes that overlap this much are positive.")
    negative_ratio: float = Field(3.0, gt=0, description="Hardest negatives counted for each positive.")
    box_weight: float = Field(1.0, gt=0, description="Weight of the box offsets against the classes.")


class SsdConfig(DetectionConfig):
    """SSD: default boxes on several feature maps (Liu et al. 2016)."""

    data: Data = Data(image_size=300, batch_size=32)
    model: SsdModel = SsdModel()
    loss: SsdLoss = SsdLoss()
    optim: Optim = Optim(lr=1e-3)
    # The paper's schedule for PASCAL VOC 2007+2012; it trains from a body pretrained on ImageNet.
    schedule: Schedule = Schedule(name="milestones", warmup_steps=1000, milestones=((80_000, 0.1), (100_000, 0.1)))
    augment: Augment = Augment(scale=(0.5, 2.0), translate=0.3)
    limits: Limits = Limits(
        max_steps=120_000, checkpoint_every_steps=2000, evaluate_every_steps=4000, sample_every_steps=4000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": 64, "batch_size": 32},
            "model": {
                "body": "small",
                "small": {"stem_width": 16, "stages": ((32, 1), (64, 2), (64, 2))},
                "num_small_levels": 2,
                "sizes": ((0.25, 0.35), (0.5, 0.65)),
                "ratios": ((1, 2, 0.5), (1, 2, 0.5)),
            },
            "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 40},
            "augment": {"scale": (0.9, 1.1), "translate": 0.1, "exposure": 1.2, "saturation": 1.2},
            "limits": {
                "max_steps": 432,
                "checkpoint_every_steps": 108,
                "evaluate_every_steps": 108,
                "sample_every_steps": 108,
            },
        },
    }

    @model_validator(mode="after")
    def _image_fits_the_body(self) -> Self:
        if self.model.body == "vgg16" and self.data.image_size != 300:
            raise ValueError(
                "data.image_size must be 300 with model.body 'vgg16'; use model.body 'small' for other sizes"
            )
        if self.model.body == "small" and self.data.image_size % self.model.small.stride:
            raise ValueError(
                f"data.image_size must be a multiple of {self.model.small.stride}, the stride of model.small"
            )
        return self

    def num_default_boxes(self) -> tuple[int, ...]:
        """Return the default boxes at each place, level by level."""
        pairs = zip(self.model.sizes, self.model.ratios, strict=True)
        return tuple(len(sizes) + len(ratios) - 1 for sizes, ratios in pairs)
