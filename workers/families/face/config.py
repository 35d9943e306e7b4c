"""Configs of the face recipes. Torch-free: the API server validates with these.

The number of people is not here: it comes from the dataset.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import Limits, Section, preset_limits
from workers.families.sections import Fraction, Optim, Schedule, SupervisedConfig

Width = Annotated[int, Field(ge=4, le=2048)]


class Data(Section):
    """What one batch is made of."""

    image_size: int = Field(112, ge=16, le=512, description="Side in pixels of what the network sees: 112 or 160.")
    crop: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Side of the square cut from an image's middle, of the largest there; faces with landmarks are "
        "aligned instead.",
    )
    batch_size: int = Field(128, ge=2, le=2048, description="Images in one step.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded images; those that do not fit are decoded at every use."
    )


class PeopleData(Data):
    """Batches of a few pictures each of many people."""

    shots: int = Field(4, ge=2, le=64, description="Pictures of each person in a batch.")

    @model_validator(mode="after")
    def _batch_holds_people(self) -> Self:
        if self.batch_size % self.shots or self.batch_size < 2 * self.shots:
            text = (
                f"data.batch_size {self.batch_size} must be a multiple of data.shots {self.shots}, and twice it or more"
            )
            raise ValueError(text)
        return self


class PairData(Data):
    """Batches of pairs, every other one of the same person."""

    batch_size: int = Field(64, ge=2, le=1024, description="Pairs in one step, each of two images.")


class Model(Section):
    """The network that makes embeddings; they have length 1."""

    name: Literal["resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large", "small"] = Field(
        "resnet18", description="A body of torchvision, or small: `widths`."
    )
    dim: int = Field(128, ge=4, le=2048, description="Numbers of an embedding.")
    widths: tuple[Width, ...] = Field(
        (24, 48, 64), min_length=1, max_length=4, description="Channels of the small body's blocks, each halving."
    )


class Augment(Section):
    """Random changes of training images; every draw depends on the seed and the step alone."""

    flip: Fraction = Field(0.5, description="Chance of a mirror image.")
    turn_degrees: float = Field(10.0, ge=0, le=45, description="Largest turn to either side.")
    brightness: float = Field(1.25, ge=1, le=4, description="Largest factor of brightness, and its inverse.")
    erasing: Fraction = Field(0.2, description="Chance that a random rectangle is blanked, as a mask would.")


class Eval(Section):
    """How held-out people are told apart. Pairs are the dataset's own, where it has any (LFW)."""

    batch_size: int = Field(256, ge=1, le=8192, description="Images in one forward of the evaluation.")
    pairs: int = Field(
        300,
        ge=1,
        le=100_000,
        description="Pairs of one person, and of two, in each of ten folds, where none are given.",
    )
    enrolled: int = Field(3, ge=1, le=100, description="Pictures of each person that an identification compares with.")
    num_samples: int = Field(8, ge=1, le=64, description="Queries in a picture of matches.")


class FaceConfig(SupervisedConfig):
    """What the face recipes share."""

    model: Model = Model()
    optim: Optim = Optim(name="adamw", lr=1e-3, weight_decay=5e-4)
    schedule: Schedule = Schedule(name="cosine", warmup_steps=1000)
    augment: Augment = Augment()
    eval: Eval = Eval()
    limits: Limits = Limits(
        max_steps=60_000, checkpoint_every_steps=1000, evaluate_every_steps=2000, sample_every_steps=2000
    )


_TINY: dict[str, Any] = {
    "model": {"name": "small", "dim": 64},
    "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup_steps": 20},
}


class TripletLoss(Section):
    """What is minimised: distances within triplets, or angles to one direction a person."""

    name: Literal["triplet", "arcface"] = Field(
        "triplet", description="triplet: FaceNet's; arcface: a softmax over the people of train with a margin in angle."
    )
    margin: float = Field(
        0.2, gt=0, le=4, description="By how much another person is to be farther, in squared distance; triplet only."
    )
    mining: Literal["semi_hard", "violating", "batch_hard"] = Field(
        "violating",
        description="Triplets of a batch that count. semi_hard: the other is farther than the same person, within the "
        "margin; violating: any within the margin; batch_hard: the farthest same and the nearest other of each image.",
    )
    arc_scale: float = Field(64.0, gt=0, le=1000, description="Factor of the cosines before the softmax; arcface only.")
    arc_margin: float = Field(0.5, ge=0, lt=1.57, description="Angle added to the right person's; arcface only.")


class TripletConfig(FaceConfig):
    """FaceNet: anchor, positive and negative (Schroff et al. 2015); or ArcFace (Deng et al. 2019)."""

    data: PeopleData = PeopleData()
    loss: TripletLoss = TripletLoss()

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            **_TINY,
            "data": {"image_size": 32, "batch_size": 64, "shots": 2},
            "limits": preset_limits(300, evaluations=2),
        },
        "arcface": {
            "model": {"name": "resnet50", "dim": 512},
            "loss": {"name": "arcface"},
            "optim": {"name": "sgd", "lr": 0.1, "weight_decay": 5e-4},
        },
    }


class SiameseLoss(Section):
    """What is minimised over pairs; every form is the same for (a, b) as for (b, a)."""

    name: Literal["bce", "contrastive"] = Field(
        "bce", description="bce: the cross entropy of same or different; contrastive: distances with a margin."
    )
    margin: float = Field(
        1.0, gt=0, le=2, description="Distance from which two people count as apart; contrastive only."
    )


class SiameseConfig(FaceConfig):
    """One encoder for both pictures of a pair (Chopra et al. 2005; Koch et al. 2015)."""

    data: PairData = PairData()
    loss: SiameseLoss = SiameseLoss()

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {**_TINY, "data": {"image_size": 32, "batch_size": 32}, "limits": preset_limits(400, evaluations=2)},
    }

    def max_processes(self) -> int:
        return self.data.batch_size
