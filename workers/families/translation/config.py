"""Configs of the translation recipes. Torch-free: the API server validates with these.

Images are seen as x * 2 - 1, so that they have the range of Tanh, and so are all errors of pixels here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import Limits, RecipeConfig, Section, preset_limits
from workers.families.sections import Fraction

Side = Annotated[int, Field(ge=16, le=1024)]
Weight = Annotated[float, Field(ge=0, le=10_000)]


class Data(Section):
    """What one batch is made of."""

    image_size: Side = Field(256, description="Side in pixels of the square that networks see.")
    load_size: Side = Field(
        286,
        description="Side in pixels that images are scaled to; training cuts squares of data.image_size from there.",
    )
    batch_size: int = Field(1, ge=1, le=1024, description="Images, or pairs, in one update.")
    flip: Fraction = Field(0.5, description="Chance of a mirror image; 0 where left and right mean something.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded images; those that do not fit are decoded at every use."
    )

    @model_validator(mode="after")
    def _squares_fit(self) -> Self:
        if self.load_size < self.image_size:
            raise ValueError(
                f"data.load_size must be at least data.image_size; use {self.image_size} to cut nothing, "
                f"or {round(self.image_size * 286 / 256)} for the paper's share"
            )
        return self


class Optim(Section):
    """Adam for both players."""

    lr: float = Field(2e-4, gt=0, le=10, description="Peak learning rate of the generators.")
    lr_discriminator: float | None = Field(
        None, gt=0, le=10, description="Peak learning rate of the discriminators; empty: that of the generators."
    )
    beta1: float = Field(0.5, ge=0, lt=1, description="Momentum; high values make the game swing.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Memory of squared gradients.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="L2 penalty on all weights.")


class Decay(Section):
    """The learning rate as a function of the step; `limits.max_steps` is its end."""

    decay_from: Fraction = Field(
        0.5, description="Share of the training after which the rate falls, linearly, to 0; 1: it never does."
    )


class Eval(Section):
    """How held-out images are scored, in the square that networks see."""

    batch_size: int = Field(8, ge=1, le=1024, description="Images in one forward of the evaluation.")
    num_images: int = Field(500, ge=1, le=1_000_000, description="Held-out images that are scored, at most.")
    num_samples: int = Field(6, ge=1, le=64, description="Held-out images in a sample picture.")


class PlayersConfig(RecipeConfig):
    """What the translation recipes share whatever their pictures are cut to."""

    optim: Optim = Optim()
    schedule: Decay = Decay()
    eval: Eval = Eval()


class TranslationConfig(PlayersConfig):
    """What the translation recipes share that see whole pictures as squares."""

    data: Data = Data()


def tiny_preset(steps: int, data: dict[str, Any], *, lr: float = 1e-3, **sections: dict[str, Any]) -> dict[str, Any]:
    """Return the preset `tiny` of a recipe: 32 x 32 pixels and so many steps; what else it says goes into `sections`."""
    return {
        "data": {"image_size": 32, "load_size": 32, **data},
        "optim": {"lr": lr},
        "eval": {"batch_size": 50},
        "limits": preset_limits(steps),
        **sections,
    }


TINY_JUDGE = {"discriminator_width": 16, "discriminator_layers": 2}
TINY_UNET = {"width": 16, "depth": 5, "norm": "batch", **TINY_JUDGE}


def check_halvings(image_size: int, times: int, field: str) -> None:
    """Raise ValueError where a side cannot be halved so many times."""
    if image_size % 2**times:
        most = (image_size & -image_size).bit_length() - 1
        raise ValueError(
            f"{field} is {times}, but data.image_size {image_size} can be halved {most} times only: lower it, or use "
            f"a size that is a multiple of {2**times}"
        )


def check_patches(image_size: int, model: PatchModel, *, scales: int = 1) -> None:
    """Raise ValueError where a discriminator's last map would be empty."""
    least = 4 * 2 ** (model.discriminator_layers + scales - 1)
    if image_size < least:
        raise ValueError(
            f"model.discriminator_layers {model.discriminator_layers} takes a data.image_size of {least} at least, not "
            f"{image_size}: lower the first or raise the second"
        )


class PatchModel(Section):
    """The discriminator: judges overlapping patches of a picture (Isola et al. 2017, section 3.2.2)."""

    discriminator_width: int = Field(64, ge=1, le=1024, description="Maps of the discriminator's first layer.")
    discriminator_layers: int = Field(
        3,
        ge=1,
        le=6,
        description="Strided layers, of which 3 see patches of 70 x 70 pixels, 2 of 34 x 34, 1 of 16 x 16.",
    )


class UnetModel(PatchModel):
    """A U-Net: halves the side `depth` times and doubles it back, each stage beside what came in at its size."""

    width: int = Field(64, ge=1, le=512, description="Maps of the first stage; later ones have up to eight times more.")
    depth: int = Field(8, ge=3, le=10, description="Stages; 8 bring 256 pixels to one.")
    norm: Literal["instance", "batch"] = Field(
        "instance",
        description="instance: each image by itself, which is what the paper's batch normalisation does at its batch size "
        "of 1, in training and in testing; batch: over the batch, and with running statistics when it is served.",
    )
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Dropout of the widest stages on the way back, in training only: answers are fixed.",
    )


class PairedLoss(Section):
    """The game, and the distance to the target."""

    name: Literal["nonsat", "lsgan", "hinge"] = Field(
        "nonsat", description="nonsat: cross entropy, as in the paper; lsgan: squares; hinge."
    )
    l1: Weight = Field(100.0, description="Weight of the mean absolute difference from the target; the game's is 1.")


class Pix2pixConfig(TranslationConfig):
    """pix2pix: paired images, a U-Net against a discriminator of patches (Isola et al. 2017)."""

    model: UnetModel = UnetModel()
    loss: PairedLoss = PairedLoss()
    limits: Limits = Limits(
        max_steps=80_000, checkpoint_every_steps=2000, evaluate_every_steps=4000, sample_every_steps=2000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": tiny_preset(600, {"batch_size": 16}, model={**TINY_UNET, "dropout": 0.0}),
    }

    @model_validator(mode="after")
    def _side_can_be_halved(self) -> Self:
        check_halvings(self.data.image_size, self.model.depth, "model.depth")
        check_patches(self.data.image_size, self.model)
        return self

    def max_processes(self) -> int:
        return self.data.batch_size


class CycleModel(PatchModel):
    """Generators of residual blocks at a quarter of the side."""

    width: int = Field(64, ge=1, le=512, description="Maps at full size; the blocks have four times as many.")
    blocks: int = Field(9, ge=1, le=32, description="Residual blocks; the paper has 9, and 6 at 128 pixels.")


class CycleLoss(Section):
    """The games, and what keeps a picture's content: there and back again it should be what it was."""

    name: Literal["lsgan", "nonsat", "hinge"] = Field(
        "lsgan", description="lsgan: squares, as in the paper; nonsat: cross entropy; hinge."
    )
    cycle: Weight = Field(10.0, description="Weight of the mean absolute difference after both ways.")
    identity: Fraction = Field(
        0.5,
        description="Share of the weight of the cycle that a generator's change to a picture of its own target domain has; "
        "it keeps colours. 0 where the domains' colours are each other's.",
    )
    pool_size: int = Field(
        50, ge=0, le=1000, description="Generated images that are kept to be shown to the discriminators once more."
    )


class CycleganConfig(TranslationConfig):
    """CycleGAN: two domains, no pairs, a generator each way (Zhu et al. 2017)."""

    model: CycleModel = CycleModel()
    loss: CycleLoss = CycleLoss()
    limits: Limits = Limits(
        max_steps=200_000, checkpoint_every_steps=2000, evaluate_every_steps=10_000, sample_every_steps=2000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": tiny_preset(
            450,
            {"batch_size": 4, "flip": 0.0},
            model={"width": 12, "blocks": 2, **TINY_JUDGE},
            loss={"identity": 0.0},
        ),
    }

    @model_validator(mode="after")
    def _quarter_is_whole(self) -> Self:
        if self.data.image_size % 4:
            near = round(self.data.image_size / 4) * 4
            raise ValueError(f"data.image_size must be a multiple of 4, which the generators halve twice; use {near}")
        check_patches(self.data.image_size, self.model)
        return self


class DiscoModel(Section):
    """Generators and discriminators that halve the side down to 4 pixels."""

    width: int = Field(64, ge=1, le=512, description="Maps of the generators' first layer; doubled at each stage.")
    bottleneck: int = Field(
        0,
        ge=0,
        le=4096,
        description="Units between the way down and the way up, 100 in the paper's deeper one; 0: none.",
    )
    discriminator_width: int = Field(64, ge=1, le=512, description="Maps of the discriminators' first layer.")


class DiscoLoss(Section):
    """The game with the features that discriminators see, against what comes back from both ways."""

    name: Literal["nonsat", "lsgan", "hinge"] = Field("nonsat", description="nonsat: cross entropy, as in the paper.")
    game: Weight = Field(0.1, description="Weight of the game.")
    features: Weight = Field(
        0.9, description="Weight of the squared distance between mean features of real and generated pictures."
    )
    rate_start: Fraction = Field(
        0.01,
        description="Share of the loss that the squared difference after both ways has at first; the rest is the game's.",
    )
    rate: Fraction = Field(0.5, description="That share from `start_steps` on.")
    start_steps: int = Field(
        3333,
        ge=0,
        description="Updates with the first share; the paper's 10,000 iterations, of which three make one here.",
    )


class DiscoOptim(Optim):
    """Adam for both players."""

    weight_decay: float = Field(1e-5, ge=0, le=1, description="L2 penalty on all weights.")
    generator_steps: int = Field(
        2,
        ge=1,
        le=20,
        description="Updates of the generators, each on other pictures, after one of the discriminators.",
    )


class DiscoganConfig(TranslationConfig):
    """DiscoGAN: two domains, no pairs, features instead of a pool (Kim et al. 2017)."""

    data: Data = Data(image_size=64, load_size=64, batch_size=64, flip=0.0)
    model: DiscoModel = DiscoModel()
    loss: DiscoLoss = DiscoLoss()
    optim: DiscoOptim = DiscoOptim()
    schedule: Decay = Decay(decay_from=1.0)
    limits: Limits = Limits(
        max_steps=20_000, checkpoint_every_steps=500, evaluate_every_steps=2000, sample_every_steps=500
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": tiny_preset(
            200,
            {"batch_size": 16, "flip": 0.0},
            model={"width": 16, "discriminator_width": 16},
            loss={"rate_start": 0.5, "start_steps": 0},
            schedule={"decay_from": 0.5},
        ),
    }

    @model_validator(mode="after")
    def _side_is_a_power_of_two(self) -> Self:
        if self.data.image_size & (self.data.image_size - 1):
            raise ValueError("data.image_size must be a power of two, such as 64")
        return self


class BicycleModel(PatchModel):
    """A U-Net that is told a code, an encoder that finds the code of a picture, discriminators at several scales."""

    width: int = Field(64, ge=1, le=512, description="Maps of the first stage; later ones have up to eight times more.")
    depth: int = Field(8, ge=3, le=10, description="Stages of the U-Net; 8 bring 256 pixels to one.")
    norm: Literal["instance", "batch"] = Field(
        "instance",
        description="instance: each image by itself, as in the authors' code, so that of a code that is the same everywhere "
        "only borders tell the stages in the middle; batch: over the batch, and with running statistics when it is served.",
    )
    latent_size: int = Field(8, ge=1, le=256, description="Length of the code z.")
    where: Literal["all", "input"] = Field(
        "all", description="What z is joined to: what every stage down gets, or the picture alone."
    )
    encoder_width: int = Field(64, ge=1, le=512, description="Maps of the encoder's first layer.")
    encoder_blocks: int = Field(
        5, ge=2, le=8, description="Halvings of the encoder: a convolution, then residual blocks."
    )
    scales: int = Field(
        2, ge=1, le=4, description="Discriminators of one picture, each at half the side of the one before."
    )
    conditional: bool = Field(
        False, description="Whether discriminators see the input beside the answer; the authors' code does not show it."
    )


class BicycleLoss(Section):
    """The games, and what ties a code to a picture in both directions."""

    mode: Literal["bicycle", "cvae", "clr", "noise"] = Field(
        "bicycle",
        description="bicycle: both of the next two; cvae: from a target's own code back to it (cVAE-GAN); clr: from a drawn code "
        "to a picture and back to the code (cLR-GAN); noise: a drawn code and the distance to the target, which is pix2pix "
        "with noise, and which learns to hear none of it.",
    )
    name: Literal["lsgan", "nonsat", "hinge"] = Field("lsgan", description="lsgan: squares, as in the paper.")
    l1: Weight = Field(10.0, description="Weight of the mean absolute difference from the target.")
    kl: Weight = Field(
        0.01, description="Weight of the divergence of a picture's codes from N(0, 1), a mean over pictures."
    )
    code: Weight = Field(
        0.5, description="Weight of the mean absolute difference between a drawn code and the one found."
    )

    @property
    def encodes(self) -> bool:
        """Return whether targets are drawn from their own codes."""
        return self.mode in ("bicycle", "cvae")

    @property
    def draws(self) -> bool:
        """Return whether codes are drawn in training."""
        return self.mode != "cvae"


class BicycleganConfig(TranslationConfig):
    """BicycleGAN: many answers to one input, each of a code (Zhu et al. 2017b)."""

    data: Data = Data(batch_size=2)
    model: BicycleModel = BicycleModel()
    loss: BicycleLoss = BicycleLoss()
    limits: Limits = Limits(
        max_steps=1_500_000, checkpoint_every_steps=5000, evaluate_every_steps=25_000, sample_every_steps=5000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": tiny_preset(
            500, {"batch_size": 16}, lr=2e-3, model={**TINY_UNET, "encoder_width": 16, "encoder_blocks": 4}
        ),
    }

    @model_validator(mode="after")
    def _sides_can_be_halved(self) -> Self:
        check_halvings(self.data.image_size, self.model.depth, "model.depth")
        check_halvings(self.data.image_size, self.model.encoder_blocks, "model.encoder_blocks")
        check_patches(self.data.image_size, self.model, scales=self.model.scales)
        return self

    @model_validator(mode="after")
    def _batch_has_halves(self) -> Self:
        if self.data.batch_size % 2:
            raise ValueError(
                f"data.batch_size must be even, not {self.data.batch_size}: one half is drawn, the other judged against"
            )
        return self
