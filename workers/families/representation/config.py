"""Configs of the representation recipes. Torch-free: the API server validates with these.

Labels are never learned from; where the dataset has classes, they judge what was learned.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import Limits, Section, preset_limits
from workers.families.sections import Fraction, Optim, Schedule, SupervisedConfig

Side = Annotated[int, Field(ge=4, le=1024)]
Width = Annotated[int, Field(ge=1, le=16_384)]


class Data(Section):
    """What one batch is made of."""

    image_size: tuple[Side, Side] = Field(
        (28, 28), description="Height and width in pixels; the middle of an image is cut to this shape and scaled."
    )
    channels: Literal[1, 3] = Field(1, description="1: grey; 3: colour.")
    batch_size: int = Field(128, ge=1, le=8192, description="Images in one step.")
    flip: Fraction = Field(0.0, description="Chance of a mirror image; 0 where left and right mean something.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded images; those that do not fit are decoded at every use."
    )


class Eval(Section):
    """How held-out images judge what was learned."""

    batch_size: int = Field(256, ge=1, le=8192, description="Images in one forward of the evaluation.")
    num_samples: int = Field(12, ge=1, le=64, description="Images in a row of a sample picture.")
    label_images: int = Field(
        20_000,
        ge=1,
        le=1_000_000,
        description="Training images, at most, whose labels judge the features; nothing is judged where there are none.",
    )


class RepresentationConfig(SupervisedConfig):
    """What the representation recipes share."""

    data: Data = Data()
    eval: Eval = Eval()

    def max_processes(self) -> int:
        return self.data.batch_size


class VaeModel(Section):
    """Encoder and decoder, mirror images of each other."""

    latent_size: int = Field(20, ge=1, le=4096, description="Length of z.")
    widths: tuple[Width, ...] = Field(
        (400,), max_length=8, description="Hidden layers between pixels, or the last convolution, and z."
    )
    channels: tuple[Width, ...] = Field(
        (),
        max_length=8,
        description="Channels of convolutions with 4 x 4 kernels, each halving both sides; none: fully connected.",
    )


class VaeLoss(Section):
    """What is minimised: cross entropy of all pixels plus beta times the divergence of q(z|x) from N(0, 1), in nats."""

    beta: float = Field(
        1.0, ge=0, le=1000, description="Weight of the divergence: 1 is the bound itself, more disentangles (beta-VAE)."
    )


class VaeEval(Eval):
    """How held-out images judge what was learned."""

    neighbours: int = Field(5, ge=1, le=100, description="Nearest training images whose classes vote.")


class VaeConfig(RepresentationConfig):
    """VAE (Kingma and Welling 2014), as PyTorch's example: 784-400-20-400-784 for MNIST.

    `conv` is for colour pictures of 64 x 64: four convolutions each way (Burgess et al. 2018, appendix A).
    """

    data: Data = Data()
    model: VaeModel = VaeModel()
    loss: VaeLoss = VaeLoss()
    optim: Optim = Optim(name="adamw", lr=1e-3, weight_decay=0.0)
    eval: VaeEval = VaeEval()
    # Ten epochs of MNIST.
    limits: Limits = Limits(
        max_steps=4690, checkpoint_every_steps=469, evaluate_every_steps=469, sample_every_steps=938
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": (8, 8)},
            "model": {"latent_size": 10, "widths": (200,)},
            "optim": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.0},
            "schedule": {"name": "cosine"},
            "limits": preset_limits(1500),
        },
        "conv": {
            "data": {"image_size": (64, 64), "channels": 3, "batch_size": 64, "flip": 0.5},
            "model": {"latent_size": 64, "widths": (256,), "channels": (32, 32, 64, 64)},
            "optim": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.0},
            "limits": preset_limits(30_000, evaluations=15),
        },
    }

    @model_validator(mode="after")
    def _sides_survive_every_halving(self) -> Self:
        times = 2 ** len(self.model.channels)
        if any(side % times for side in self.data.image_size):
            raise ValueError(
                f"data.image_size must be multiples of {times} for {len(self.model.channels)} model.channels"
            )
        return self


class MaeData(Data):
    """What one batch is made of."""

    image_size: tuple[Side, Side] = Field(
        (224, 224), description="Height and width in pixels of what the network sees."
    )
    stored_size: int = Field(
        256,
        ge=4,
        le=2048,
        description="Shorter side in pixels of the middle of an image, of which random crops are taken.",
    )
    channels: Literal[1, 3] = Field(3, description="1: grey from -1 to 1; 3: colour, normalised as for ImageNet.")
    batch_size: int = Field(64, ge=1, le=8192, description="Images in one step.")
    flip: Fraction = Field(0.5, description="Chance of a mirror image; 0 where left and right mean something.")
    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.2, 1.0), description="Area of the random crop as a fraction of the image; [1, 1] takes all of it."
    )

    @model_validator(mode="after")
    def _crops_are_crops(self) -> Self:
        low, high = self.crop_scale
        if not 0 < low <= high:
            raise ValueError("data.crop_scale must be [low, high] with 0 < low <= high <= 1")
        if self.stored_size < min(self.image_size):
            raise ValueError(f"data.stored_size must be at least {min(self.image_size)}, a side of data.image_size")
        return self

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Height and width of the middle of an image, in the proportions of what the network sees."""
        height, width = self.image_size
        scale = self.stored_size / min(height, width)
        return round(height * scale), round(width * scale)

    @property
    def has_crops(self) -> bool:
        return self.crop_scale != (1.0, 1.0) or self.stored_shape != self.image_size


class MaeModel(Section):
    """A Vision Transformer as the encoder, a narrower one as the decoder; a class token and fixed positions in both."""

    patch: int = Field(16, ge=1, le=64, description="Side of a patch in pixels.")
    dim: int = Field(768, ge=8, le=4096, description="Width of a token.")
    depth: int = Field(12, ge=1, le=64, description="Encoder blocks.")
    heads: int = Field(12, ge=1, le=64, description="Attention heads of a block.")
    mlp: int = Field(3072, ge=8, le=16_384, description="Hidden width of a block's MLP.")
    decoder_dim: int = Field(512, ge=8, le=4096, description="Width of a token of the decoder.")
    decoder_depth: int = Field(8, ge=1, le=64, description="Decoder blocks.")
    decoder_heads: int = Field(16, ge=1, le=64, description="Attention heads of a decoder block.")

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        for name, width, heads in (
            ("dim", self.dim, self.heads),
            ("decoder_dim", self.decoder_dim, self.decoder_heads),
        ):
            if width % heads:
                raise ValueError(
                    f"model.{name} {width} must be a multiple of model.{name.replace('dim', 'heads')} {heads}"
                )
            if width % 4:
                raise ValueError(f"model.{name} must be a multiple of 4: sines and cosines of rows and columns")
        return self


class MaeLoss(Section):
    """What is minimised: the mean squared error of the pixels of hidden patches."""

    mask_ratio: float = Field(0.75, gt=0, lt=1, description="Share of the patches that the encoder does not see.")
    norm_pix: bool = Field(
        True,
        description="Each patch is to be found less its own mean and over its own deviation: better features. Without,"
        " better pictures.",
    )


class MaeConfig(RepresentationConfig):
    """MAE (He et al. 2022): ViT-B/16 as in the paper, `vit_l` the larger one.

    The paper trains with batches of 4096; learning rates here go down with the batch, as its rule has it.
    """

    data: MaeData = MaeData()
    model: MaeModel = MaeModel()
    loss: MaeLoss = MaeLoss()
    # 1.5e-4 for every 256 images of a batch.
    optim: Optim = Optim(name="adamw", lr=1.5e-4 * 64 / 256, momentum=0.9, beta2=0.95, weight_decay=0.05)
    schedule: Schedule = Schedule(name="cosine", warmup_steps=20_000)
    eval: Eval = Eval()
    limits: Limits = Limits(
        max_steps=400_000, checkpoint_every_steps=1000, evaluate_every_steps=20_000, sample_every_steps=10_000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {
                "image_size": (8, 8),
                "stored_size": 8,
                "channels": 1,
                "batch_size": 128,
                "flip": 0.0,
                "crop_scale": (1.0, 1.0),
            },
            "model": {
                "patch": 2,
                "dim": 64,
                "depth": 3,
                "heads": 4,
                "mlp": 256,
                "decoder_dim": 64,
                "decoder_depth": 2,
                "decoder_heads": 4,
            },
            "loss": {"norm_pix": False},
            "optim": {"name": "adamw", "lr": 3e-3, "momentum": 0.9, "beta2": 0.95, "weight_decay": 0.05},
            "schedule": {"name": "cosine", "warmup_steps": 50},
            "limits": preset_limits(1400),
        },
        "vit_l": {"model": {"dim": 1024, "depth": 24, "heads": 16, "mlp": 4096}},
    }

    @property
    def num_patches(self) -> int:
        height, width = self.data.image_size
        return (height // self.model.patch) * (width // self.model.patch)

    @property
    def num_seen(self) -> int:
        """Patches that the encoder sees in training."""
        return int(self.num_patches * (1 - self.loss.mask_ratio))

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if any(side % self.model.patch for side in self.data.image_size):
            raise ValueError(f"data.image_size must be multiples of model.patch {self.model.patch}")
        if not 1 <= self.num_seen < self.num_patches:
            raise ValueError(
                f"loss.mask_ratio {self.loss.mask_ratio:g} of {self.num_patches} patches leaves none seen or none "
                "hidden: change it, or take smaller patches"
            )
        return self
