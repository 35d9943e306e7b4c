"""Configs of the GAN recipes. Torch-free: the API server validates with these.

Images are seen as x * 2 - 1, so that they have the range of Tanh. The number of classes comes from the dataset.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import Limits, RecipeConfig, Section, preset_limits
from workers.families.sections import Fraction, Schedule

Side = Annotated[int, Field(ge=4, le=1024)]
Width = Annotated[int, Field(ge=1, le=65_536)]


class Data(Section):
    """What one batch is made of."""

    source: Literal["images", "points"] = Field("images", description="Pictures, or points of a plane or space.")
    image_size: tuple[Side, Side] = Field(
        (64, 64), description="Height and width in pixels; the middle of an image is cut to this shape and scaled."
    )
    channels: Literal[1, 3] = Field(3, description="1: grey; 3: colour.")
    batch_size: int = Field(64, ge=1, le=8192, description="Real samples in one update of the discriminator.")
    flip: Fraction = Field(0.0, description="Chance that a real image is mirrored.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded images; those that do not fit are decoded at every use."
    )


class Loss(Section):
    """The game, on logits. `D` is what the discriminator says, `x` real and `G(z)` generated."""

    name: Literal["nonsat", "minimax", "lsgan", "hinge", "wgan_gp"] = Field(
        "nonsat",
        description="nonsat: G minimises softplus(-D(G(z))); minimax: -softplus(D(G(z))), as the first paper's game;"
        " lsgan: squares; hinge; wgan_gp: a critic with a gradient penalty.",
    )
    label_noise: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Largest random shift of the targets 1 (real) and 0 (generated) towards each other.",
    )
    penalty: float = Field(10.0, ge=0, le=1000, description="Weight of wgan_gp's gradient penalty.")
    r1_gamma: float = Field(
        0.0, ge=0, le=1000, description="R1: gamma / 2 times the squared gradient of D at real samples; 0 turns it off."
    )
    r1_every: int = Field(
        16, ge=1, le=1000, description="Updates between two with R1, which then weighs as many times."
    )

    @model_validator(mode="after")
    def _options_belong_to_their_loss(self) -> Self:
        if self.label_noise and self.name not in ("nonsat", "minimax"):
            raise ValueError(f"loss.label_noise has no effect with loss.name '{self.name}': leave it out")
        return self

    @property
    def has_second_order(self) -> bool:
        """Return whether a step differentiates a gradient."""
        return self.name == "wgan_gp" or self.r1_gamma > 0

    @property
    def allows_batch_norm(self) -> bool:
        """Return whether D may normalise over the batch: penalties on gradients are of each sample by itself."""
        return not self.has_second_order


class Optim(Section):
    """Adam for both players."""

    lr_generator: float = Field(2e-4, gt=0, le=10, description="Peak learning rate of the generator.")
    lr_discriminator: float = Field(2e-4, gt=0, le=10, description="Peak learning rate of the discriminator.")
    beta1: float = Field(0.5, ge=0, lt=1, description="Momentum; high values make the game swing.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Memory of squared gradients.")
    discriminator_steps: int = Field(
        1, ge=1, le=20, description="Updates of the discriminator, each on other samples, before one of the generator."
    )


class Augment(Section):
    """DiffAugment (Zhao et al. 2020): the discriminator sees real and generated images changed in the same ways."""

    colour: bool = Field(False, description="Random brightness, saturation and contrast.")
    translation: float = Field(0.0, ge=0, le=0.5, description="Largest shift as a fraction of the side; 1/8 is usual.")
    cutout: float = Field(0.0, ge=0, le=0.9, description="Side of a blanked square as a fraction; 1/2 is usual.")

    @property
    def is_active(self) -> bool:
        return self.colour or self.translation > 0 or self.cutout > 0


class Average(Section):
    """The moving average of the generator's weights, which evaluation and serving use."""

    decay: float = Field(
        0.999, ge=0, lt=1, description="Share kept at an update; less at the start of training. 0: no average."
    )


class Eval(Section):
    """How generated samples are scored: against held-out ones, in the features of a network."""

    feature_net: Literal["small", "inception_v3", "resnet18", "resnet50"] = Field(
        "small",
        description="small: a classifier of this dataset's labels, attributes or, without any, rotations, trained when"
        " the job first evaluates; the others are torchvision's, if their weights can be had. Names the figure fid@...,"
        " whose features are scaled to one variance: published distances are of another scale and network.",
    )
    feature_epochs: int = Field(20, ge=1, le=1000, description="Passes over the images that train the small network.")
    feature_images: int = Field(20_000, ge=1, le=10_000_000, description="Images it is trained on, at most.")
    num_images: int = Field(5000, ge=2, le=1_000_000, description="Generated samples that are scored.")
    batch_size: int = Field(256, ge=1, le=8192, description="Samples in one forward of the evaluation.")
    num_samples: int = Field(
        64,
        ge=1,
        le=256,
        description="Samples in the picture, of classes as many of each as that gives; their latents stay the same.",
    )
    collapse_below: Fraction = Field(
        0.3, description="Warn of a collapse when generated samples are this much less diverse than real ones."
    )


class GanConfig(RecipeConfig):
    """What the GAN recipes share."""

    data: Data = Data()
    loss: Loss = Loss()
    optim: Optim = Optim()
    schedule: Schedule = Schedule(name="constant")
    augment: Augment = Augment()
    average: Average = Average()
    eval: Eval = Eval()

    @model_validator(mode="after")
    def _points_are_no_images(self) -> Self:
        if self.data.source == "points" and not isinstance(self, VanillaConfig):
            raise ValueError("data.source must be 'images': only gan/vanilla makes points")
        if self.data.source == "points" and (self.augment.is_active or self.data.flip):
            raise ValueError("augment and data.flip change images: leave them out with data.source 'points'")
        return self

    def max_processes(self) -> int:
        return self.data.batch_size


class FcModel(Section):
    """Fully connected networks; a generator without hidden layers is linear."""

    latent_size: int = Field(100, ge=1, le=4096, description="Length of z.")
    generator_widths: tuple[Width, ...] = Field((300,), max_length=8, description="Hidden layers of the generator.")
    discriminator_widths: tuple[Width, ...] = Field(
        (100,), max_length=8, description="Hidden layers of the discriminator."
    )
    activation: Literal["leaky_relu", "tanh"] = Field("leaky_relu", description="What follows every hidden layer.")
    slope: float = Field(0.02, ge=0, lt=1, description="Slope of LeakyReLU below 0.")
    norm: bool = Field(True, description="Layer normalisation after every hidden layer.")


_PLANE = {"source": "points", "batch_size": 64}
_PLANE_MODEL = {
    "latent_size": 2,
    "generator_widths": (),
    "discriminator_widths": (16, 16),
    "slope": 0.2,
    "norm": False,
}


class VanillaConfig(GanConfig):
    """The first GAN (Goodfellow et al. 2014), fully connected: a Gaussian of points, or images.

    `images` is 100-300-pixels. `book` has the lesson's learning rates, with which some seeds fail.
    """

    data: Data = Data(source="points")
    model: FcModel = FcModel(latent_size=2, generator_widths=(), discriminator_widths=(16, 16), slope=0.2, norm=False)
    optim: Optim = Optim(lr_generator=0.01, lr_discriminator=0.01)
    schedule: Schedule = Schedule(name="linear")
    average: Average = Average(decay=0.0)
    limits: Limits = Limits(
        max_steps=1500, checkpoint_every_steps=500, evaluate_every_steps=500, sample_every_steps=500
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"limits": preset_limits(1500), "eval": {"num_images": 20_000}},
        "book": {
            "data": {"source": "points", "batch_size": 8},
            "model": _PLANE_MODEL | {"discriminator_widths": (5, 3), "activation": "tanh"},
            "optim": {"lr_generator": 0.005, "lr_discriminator": 0.05, "beta1": 0.9},
            "schedule": {"name": "constant"},
            "limits": preset_limits(2500),
        },
        "images": {
            "data": {"source": "images", "image_size": (28, 28), "channels": 1},
            "model": {},
            "optim": {"lr_generator": 1e-4, "lr_discriminator": 1e-4},
            "schedule": {"name": "constant"},
            "average": {"decay": 0.999},
            "limits": preset_limits(50_000, evaluations=25),
        },
    }


class ConvModel(Section):
    """DCGAN's mirror of transposed convolutions and convolutions; every stage doubles or halves the side."""

    latent_size: int = Field(100, ge=1, le=4096, description="Length of z.")
    generator_channels: int = Field(64, ge=1, le=1024, description="Maps of the generator's last hidden layer.")
    discriminator_channels: int = Field(64, ge=1, le=1024, description="Maps of the discriminator's first layer.")


class _ConvConfig(GanConfig):
    model: ConvModel = ConvModel()

    @model_validator(mode="after")
    def _side_is_a_power_of_two(self) -> Self:
        height, width = self.data.image_size
        if height != width or height & (height - 1) or height < 8:
            raise ValueError("data.image_size must be two equal powers of two from 8 on, such as [64, 64]")
        return self


class DcganConfig(_ConvConfig):
    """DCGAN: all convolutions, batch normalisation, no pooling (Radford et al. 2016).

    `pokemon` has the lesson's settings for a small set of sprites; `paper` the widths, rates and batch of the
    authors' own code, whose 5 x 5 kernels, uniform z and decay of weights it leaves.
    """

    data: Data = Data(batch_size=128)
    limits: Limits = Limits(
        max_steps=50_000, checkpoint_every_steps=1000, evaluate_every_steps=2500, sample_every_steps=1000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": (32, 32), "batch_size": 64},
            "model": {"latent_size": 32, "generator_channels": 32, "discriminator_channels": 32},
            "average": {"decay": 0.99},
            "eval": {"num_images": 1000, "feature_epochs": 4},
            "limits": preset_limits(1600, evaluations=4),
        },
        "paper": {
            "data": {"image_size": (64, 64), "batch_size": 128},
            "model": {"latent_size": 100, "generator_channels": 128, "discriminator_channels": 128},
        },
        "pokemon": {
            "data": {"image_size": (64, 64), "batch_size": 256},
            "optim": {"lr_generator": 0.005, "lr_discriminator": 0.005},
            "schedule": {"name": "linear"},
            "limits": preset_limits(3200, evaluations=8),
        },
    }


class CganModel(ConvModel):
    """DCGAN whose players are told the class."""

    embedding: int = Field(10, ge=1, le=1024, description="Length of a class's vector, joined to z.")
    condition: Literal["concat", "projection"] = Field(
        "concat", description="How D sees the class: as a map beside the image, or by a product with its features."
    )


class CganConfig(_ConvConfig):
    """Conditional GAN: generator and discriminator are told the class (Mirza and Osindero 2014)."""

    model: CganModel = CganModel()
    data: Data = Data(batch_size=128)
    limits: Limits = Limits(
        max_steps=50_000, checkpoint_every_steps=1000, evaluate_every_steps=2500, sample_every_steps=1000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": (16, 16), "channels": 1, "batch_size": 64},
            "model": {"latent_size": 32, "generator_channels": 32, "discriminator_channels": 32},
            "average": {"decay": 0.99},
            "eval": {"num_images": 1000, "num_samples": 50},
            "limits": preset_limits(1500),
        },
    }


class LapModel(Section):
    """A pyramid: a small DCGAN at the bottom, and at each level one network that adds detail."""

    base_size: int = Field(8, description="Side of the coarsest images: a power of two.")
    latent_size: int = Field(100, ge=1, le=4096, description="Length of the bottom's z; each level adds a noise plane.")
    base_channels: int = Field(64, ge=1, le=1024, description="Maps of the bottom's outermost layers.")
    level_channels: int = Field(64, ge=1, le=1024, description="Maps of a level's hidden layers.")

    @model_validator(mode="after")
    def _base_is_a_power_of_two(self) -> Self:
        if self.base_size < 8 or self.base_size & (self.base_size - 1):
            raise ValueError("model.base_size must be a power of two from 8 on")
        return self


class LapganConfig(GanConfig):
    """LAPGAN: from coarse to fine, every level a GAN of its own (Denton et al. 2015)."""

    data: Data = Data(image_size=(64, 64), batch_size=128)
    model: LapModel = LapModel()
    limits: Limits = Limits(
        max_steps=50_000, checkpoint_every_steps=1000, evaluate_every_steps=2500, sample_every_steps=1000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": (16, 16), "channels": 1, "batch_size": 64},
            "model": {"base_size": 8, "latent_size": 32, "base_channels": 64, "level_channels": 32},
            "optim": {"lr_generator": 5e-4, "lr_discriminator": 5e-4},
            "average": {"decay": 0.99},
            "eval": {"num_images": 1000},
            "limits": preset_limits(1200),
        },
    }

    @model_validator(mode="after")
    def _pairs_stay_pairs(self) -> Self:
        if self.augment.is_active:
            raise ValueError(
                "augment cannot be used here: the discriminators compare an image with its blurred form; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _levels_double_the_side(self) -> Self:
        height, width = self.data.image_size
        times = height // self.model.base_size
        if height != width or height % self.model.base_size or times < 2 or times & (times - 1):
            raise ValueError(
                f"data.image_size must be two equal sides of {self.model.base_size} (model.base_size) times a power of two"
            )
        return self


class StyleModel(Section):
    """StyleGAN2's synthesis and residual discriminator; the side decides how many layers."""

    latent_size: int = Field(512, ge=1, le=4096, description="Length of z and of w.")
    mapping_layers: int = Field(8, ge=1, le=16, description="Layers from z to w.")
    mapping_rate: float = Field(0.01, gt=0, le=1, description="Learning rate of the mapping over that of the rest.")
    channel_max: int = Field(512, ge=1, le=2048, description="Most maps of a layer.")
    channel_base: int = Field(32_768, ge=4, description="A layer has this over its side maps, up to the most.")


class StyleLoss(Loss):
    """The game and the generator's own regularisation."""

    path_weight: float = Field(2.0, ge=0, le=1000, description="Weight of the path length; 0 turns it off.")
    path_every: int = Field(4, ge=1, le=1000, description="Updates between two with the path length.")
    path_decay: float = Field(0.01, gt=0, le=1, description="Share of a new length in the running mean.")
    mixing: Fraction = Field(0.9, description="Chance that an image gets its styles from two latents.")


class StyleganConfig(GanConfig):
    """StyleGAN2: a style for every layer (Karras et al. 2020)."""

    data: Data = Data(image_size=(256, 256), batch_size=16, flip=0.5)
    model: StyleModel = StyleModel()
    loss: StyleLoss = StyleLoss(r1_gamma=10.0)
    optim: Optim = Optim(lr_generator=2e-3, lr_discriminator=2e-3, beta1=0.0, beta2=0.99)
    average: Average = Average(decay=0.99778)  # half-life of 10,000 images at 32 a step
    limits: Limits = Limits(
        max_steps=500_000, checkpoint_every_steps=2000, evaluate_every_steps=10_000, sample_every_steps=5000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": (16, 16), "channels": 1, "batch_size": 64},
            # In so few updates a mapping of the usual slow rate would stay what it was born as.
            "model": {
                "latent_size": 64,
                "mapping_layers": 2,
                "mapping_rate": 0.1,
                "channel_max": 48,
                "channel_base": 512,
            },
            "loss": {"r1_gamma": 1.0, "mixing": 0.5},
            "optim": {"lr_generator": 5e-3, "lr_discriminator": 5e-3, "beta1": 0.0, "beta2": 0.99},
            "average": {"decay": 0.99},
            "eval": {"num_images": 1000},
            "limits": preset_limits(800),
        },
    }

    def max_processes(self) -> int:
        # The running mean of path lengths would differ from process to process.
        return 1

    @model_validator(mode="after")
    def _side_is_a_power_of_two(self) -> Self:
        height, width = self.data.image_size
        if height != width or height & (height - 1) or height < 8:
            raise ValueError("data.image_size must be two equal powers of two from 8 on, such as [256, 256]")
        return self


class CelebaFcConfig(GanConfig):
    """The fully connected GAN of 218 x 178 faces: 46,712,513 parameters for blurred pictures, a lesson in memory."""

    data: Data = Data(image_size=(218, 178), batch_size=1)
    model: FcModel = FcModel()
    optim: Optim = Optim(lr_generator=1e-4, lr_discriminator=1e-4, beta1=0.9)
    average: Average = Average(decay=0.0)
    limits: Limits = Limits(
        max_steps=20_000, checkpoint_every_steps=5000, evaluate_every_steps=5000, sample_every_steps=2500
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": (24, 20), "batch_size": 16},
            "optim": {"lr_generator": 1e-3, "lr_discriminator": 1e-3, "beta1": 0.5},
            "eval": {"num_images": 500, "feature_epochs": 4},
            "limits": preset_limits(300),
        },
    }


class WideModel(Section):
    """Few wide strided convolutions with 8 x 8 kernels."""

    latent_size: int = Field(100, ge=1, le=4096, description="Length of z.")
    channels: int = Field(256, ge=1, le=2048, description="Maps of the hidden layers.")
    slope: float = Field(0.2, ge=0, lt=1, description="Slope of LeakyReLU below 0.")


class CelebaConvConfig(GanConfig):
    """The convolutional GAN of 128 x 128 faces: a fifth of the fully connected one's memory for sharper pictures."""

    data: Data = Data(image_size=(128, 128), batch_size=1)
    model: WideModel = WideModel()
    optim: Optim = Optim(lr_generator=1e-4, lr_discriminator=1e-4, beta1=0.9)
    average: Average = Average(decay=0.0)
    limits: Limits = Limits(
        max_steps=20_000, checkpoint_every_steps=5000, evaluate_every_steps=5000, sample_every_steps=2500
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": (56, 56), "batch_size": 16},
            "model": {"latent_size": 32, "channels": 16},
            "optim": {"lr_generator": 1e-3, "lr_discriminator": 1e-3, "beta1": 0.0},  # with 0.5 a seed collapsed
            "eval": {"num_images": 500, "feature_epochs": 4},
            "limits": preset_limits(600),
        },
    }

    @model_validator(mode="after")
    def _three_strides_fit(self) -> Self:
        if any(side % 8 or side < 56 for side in self.data.image_size):
            raise ValueError("data.image_size must be multiples of 8 from 56 on, such as [128, 128]")
        return self
