"""Configs of the classification recipes. Torch-free: the API server validates with these.

The number of classes is not here: it comes from the dataset.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from workers.families.config import TORCHVISION, WEIGHTS, Limits, Origin, Section, preset_limits
from workers.families.sections import Fraction, Optim, Schedule, SupervisedConfig

Positive = Annotated[float, Field(gt=0)]


class Data(Section):
    """What one batch is made of."""

    image_size: int = Field(224, ge=8, le=1024, description="Side in pixels of what the network sees.")
    stored_size: int = Field(
        256, ge=8, le=2048, description="Side of the square cut from the middle of an image, before augmentation."
    )
    channels: Literal[1, 3] = Field(3, description="1: grey from 0 to 1; 3: colour, normalised as for ImageNet.")
    batch_size: int = Field(64, ge=1, le=8192, description="Images in one step.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded images; those that do not fit are decoded at every use."
    )

    @model_validator(mode="after")
    def _stored_is_not_smaller(self) -> Self:
        if self.stored_size < self.image_size:
            raise ValueError(f"data.stored_size must be at least data.image_size {self.image_size}")
        return self


class Augment(Section):
    """Random changes of training images; every draw depends on the seed and the step alone."""

    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.35, 1.0), description="Area of the random crop as a fraction of the image; [1, 1] only shifts it."
    )
    crop_ratio: tuple[Positive, Positive] = Field((0.75, 4 / 3), description="Width over height of the random crop.")
    flip: Fraction = Field(0.5, description="Chance of a mirror image; 0 where left and right mean something.")
    jitter: Fraction = Field(0.0, description="Strength of random brightness, contrast and saturation.")
    trivial: bool = Field(False, description="One random operation of random strength an image (TrivialAugment).")
    erasing: Fraction = Field(0.0, description="Chance that a random rectangle is blanked.")
    noise: float = Field(0.0, ge=0, le=1, description="Standard deviation of added noise, of a range of 1.")
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of MixUp's Beta distribution; 0 turns it off.")
    cutmix: float = Field(0.0, ge=0, le=10, description="Alpha of CutMix's Beta distribution; 0 turns it off.")
    pairing: Fraction = Field(
        0.0, description="Chance that an image is averaged with another one, keeping its label (SamplePairing)."
    )
    pairing_off: tuple[Fraction, Fraction] = Field(
        (0.1, 0.8), description="SamplePairing acts between these fractions of the training only."
    )
    pairing_cycle: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]] = Field(
        (8, 2), description="Epochs that SamplePairing acts and then rests, in turns between these; [1, 0] never rests."
    )
    moex: Fraction = Field(0.0, description="Chance that a batch exchanges feature moments (MoEx).")
    moex_weight: Fraction = Field(0.9, description="Weight of an image's own label when its moments were exchanged.")
    moex_layer: str = Field("", max_length=200, description="Module whose output exchanges moments, such as layer1.")

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        for name in ("crop_scale", "crop_ratio", "pairing_off"):
            low, high = getattr(self, name)
            if low > high or (low == 0 and name == "crop_scale"):
                raise ValueError(f"augment.{name} must be [low, high] with 0 < low <= high")
        if self.moex > 0 and not self.moex_layer:
            raise ValueError("augment.moex needs augment.moex_layer: the name of a module, such as layer1")
        if (self.moex > 0) + (self.pairing > 0) + (self.mixup > 0 or self.cutmix > 0) > 1:
            raise ValueError(
                "augment: use one of moex, pairing and mixup/cutmix, since each changes the labels' meaning"
            )
        return self


class Loss(Section):
    """What is minimised."""

    name: Literal["ce", "bce"] = Field("ce", description="Cross entropy of a softmax, or of a sigmoid for each class.")
    label_smoothing: Fraction = Field(0.0, description="Share of each label spread over all classes; ce only.")

    @model_validator(mode="after")
    def _smoothing_belongs_to_ce(self) -> Self:
        if self.name == "bce" and self.label_smoothing:
            raise ValueError("loss.label_smoothing has no effect with loss.name 'bce': leave it out")
        return self


class Eval(Section):
    """How held-out images are scored."""

    batch_size: int = Field(256, ge=1, le=8192, description="Images in one forward of the evaluation.")
    num_samples: int = Field(12, ge=1, le=64, description="Held-out images in a sample picture.")


class ClassificationConfig(SupervisedConfig):
    """What the classification recipes share."""

    data: Data = Data()
    loss: Loss = Loss()
    augment: Augment = Augment()
    eval: Eval = Eval()

    def max_processes(self) -> int:
        # An image's partner in an exchange of moments may be with another process.
        return 1 if self.augment.moex > 0 else self.data.batch_size

    @model_validator(mode="after")
    def _exchange_is_seen(self) -> Self:
        if self.runtime.compile and self.augment.moex > 0:
            raise ValueError(
                "runtime.compile must be false with augment.moex: a compiled network would not see the exchange"
            )
        return self


_STILL = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0}
_DIGITS = {"image_size": 16, "stored_size": 16, "channels": 1, "batch_size": 64}


class MnistConfig(ClassificationConfig):
    """The two networks of the MNIST lesson: 28 x 28 grey pixels, LeakyReLU of slope 0.02."""

    data: Data = Data(image_size=28, stored_size=28, channels=1, batch_size=64)
    loss: Loss = Loss(name="bce")
    optim: Optim = Optim(name="adamw", lr=1e-3, weight_decay=0.0)
    augment: Augment = Augment(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)
    limits: Limits = Limits(
        max_steps=2800, checkpoint_every_steps=500, evaluate_every_steps=900, sample_every_steps=900
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # 15 epochs of 1,437 images
        "tiny": {"limits": preset_limits(345)},
        "book": {
            "data": {"image_size": 28, "stored_size": 28, "channels": 1, "batch_size": 1},
            "limits": preset_limits(180_000),
        },
    }

    @model_validator(mode="after")
    def _size_is_that_of_the_layers(self) -> Self:
        if self.data.image_size != 28 or self.data.channels != 1:
            raise ValueError("data.image_size must be 28 and data.channels 1: the layers are made for them")
        return self


class VitModel(Section):
    """A Vision Transformer with a class token and learned positions."""

    patch: int = Field(16, ge=1, le=64, description="Side of a patch in pixels.")
    dim: int = Field(768, ge=8, le=4096, description="Width of a token.")
    depth: int = Field(12, ge=1, le=64, description="Encoder blocks.")
    heads: int = Field(12, ge=1, le=64, description="Attention heads of a block.")
    mlp: int = Field(3072, ge=8, le=16384, description="Hidden width of a block's MLP.")
    dropout: Fraction = Field(0.0, description="Dropout in the encoder.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"model.dim {self.dim} must be a multiple of model.heads {self.heads}")
        return self


class VitConfig(ClassificationConfig):
    """ViT-B/16: an image is worth 16 x 16 words (Dosovitskiy et al. 2021)."""

    model: VitModel = VitModel()
    # The paper's 1e-3 is for batches of 4096, and goes down with the batch: this is for 64.
    optim: Optim = Optim(name="adamw", lr=1e-3 * 64 / 4096, weight_decay=0.05, max_grad_norm=1.0)
    schedule: Schedule = Schedule(name="cosine", warmup_steps=5000)
    loss: Loss = Loss(label_smoothing=0.1)
    augment: Augment = Augment(trivial=True, mixup=0.8, cutmix=1.0)
    limits: Limits = Limits(
        max_steps=100_000, checkpoint_every_steps=1000, evaluate_every_steps=5000, sample_every_steps=5000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": _DIGITS,
            "model": {"patch": 4, "dim": 64, "depth": 4, "heads": 4, "mlp": 128},
            "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05, "max_grad_norm": 1.0},
            "schedule": {"name": "cosine", "warmup_steps": 50},
            "loss": {"label_smoothing": 0.0},
            "augment": _STILL,
            "limits": preset_limits(500),
        },
    }

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if self.data.image_size % self.model.patch:
            raise ValueError(f"data.image_size must be a multiple of model.patch {self.model.patch}")
        return self


class MobileModel(Section):
    """MobileNet of torchvision, or a small stack of depthwise separable convolutions."""

    name: Literal["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "small"] = Field(
        "mobilenet_v3_large", description="Which network; small: `widths`."
    )
    widths: tuple[Annotated[int, Field(ge=4, le=2048)], ...] = Field(
        (32, 96, 160), min_length=1, max_length=8, description="Channels of the small network's stages, each halving."
    )


class MobileConfig(ClassificationConfig):
    """MobileNet: depthwise separable convolutions (Howard et al. 2017)."""

    model: MobileModel = MobileModel()
    optim: Optim = Optim(lr=0.1, weight_decay=4e-5)
    schedule: Schedule = Schedule(name="cosine", warmup_steps=1000)
    loss: Loss = Loss(label_smoothing=0.1)
    augment: Augment = Augment(trivial=True, erasing=0.1)
    limits: Limits = Limits(
        max_steps=100_000, checkpoint_every_steps=1000, evaluate_every_steps=5000, sample_every_steps=5000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            # A little larger than what is seen: the crop shifts the digits.
            "data": {**_DIGITS, "stored_size": 18},
            "model": {"name": "small"},
            "optim": {"name": "adamw", "lr": 5e-3, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 20},
            "loss": {"label_smoothing": 0.0},
            "augment": _STILL,
            "limits": preset_limits(300),
        },
    }

    @model_validator(mode="after")
    def _channels_fit(self) -> Self:
        if self.model.name != "small" and self.data.channels != 3:
            raise ValueError(f"data.channels must be 3 with model.name '{self.model.name}'")
        return self


OF_ANOTHER_SCALE = ("googlenet", "inception_v3")
"""Networks whose weights torchvision took over from TensorFlow, with inputs from -1 to 1."""


class LibraryModel(Section):
    """Any classifier of torchvision or timm."""

    source: Literal["torchvision", "timm"] = Field("torchvision", description="Whose classifier.")
    name: str = Field(
        "resnet50", pattern=r"^[a-z0-9_.]{1,100}$", description="Its name there, such as resnet50 or convnext_tiny."
    )
    pretrained: bool = Field(False, description="Start from the library's ImageNet weights, except the last layer.")
    transform_input: bool = Field(
        False,
        description="Of googlenet and inception_v3: bring images to the scale that torchvision's weights of them were "
        "trained on. On by itself where those weights are used, and part of the network from then on.",
    )

    @model_validator(mode="before")
    @classmethod
    def _weights_bring_their_scale(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("pretrained") and values.get("name") in OF_ANOTHER_SCALE:
            return {"transform_input": True, **values}
        return values


class TrainConfig(ClassificationConfig):
    """Any classifier of torchvision or timm, from scratch."""

    model: LibraryModel = LibraryModel()
    optim: Optim = Optim(lr=0.1, weight_decay=1e-4)
    schedule: Schedule = Schedule(name="cosine", warmup_steps=1000)
    loss: Loss = Loss(label_smoothing=0.1)
    augment: Augment = Augment(trivial=True, erasing=0.1, mixup=0.2, cutmix=1.0)
    limits: Limits = Limits(
        max_steps=100_000, checkpoint_every_steps=1000, evaluate_every_steps=5000, sample_every_steps=5000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "data": {"image_size": 32, "stored_size": 32, "batch_size": 64},
            "model": {"name": "resnet18"},
            "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 10},
            "loss": {"label_smoothing": 0.0},
            "augment": _STILL,
            "limits": preset_limits(120),
        },
    }

    @model_validator(mode="after")
    def _channels_are_three(self) -> Self:
        if self.data.channels != 3:
            raise ValueError("data.channels must be 3: the libraries' classifiers take colour images")
        return self


MASKED = "representation/mae"
"""The masked autoencoder, whose encoder is a Vision Transformer's body."""
_VIT = "classification/vit"
_ANY = "classification/train"
"""The recipe that builds any network, so that it alone says of none which it is."""
_BUILT_BY: dict[str, type[ClassificationConfig]] = {
    "classification/mnist_fc": MnistConfig,
    "classification/mnist_cnn": MnistConfig,
    _ANY: TrainConfig,
    _VIT: VitConfig,
    "classification/mobilenet": MobileConfig,
}


class SourceNetwork(Section):
    """The network whose weights are tuned; filled in from what the job starts from, except where those are tensors."""

    recipe: str = Field(_ANY, description="The recipe that builds it.")
    model: dict[str, Any] = Field(
        default_factory=dict,
        validate_default=True,
        description="Its section `model` there; empty where it has none.",
    )

    @field_validator("recipe")
    @classmethod
    def _recipe_is_known(cls, recipe: str) -> str:
        if recipe not in _BUILT_BY:
            raise ValueError(f"network.recipe must be one of {', '.join(_BUILT_BY)}, not {recipe!r}")
        return recipe

    # A validator of this field alone: what it finds wrong is then placed below `network.model`.
    @field_validator("model")
    @classmethod
    def _model_is_complete(cls, model: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "recipe" not in info.data:
            return model
        field = _BUILT_BY[info.data["recipe"]].model_fields.get("model")
        if field is None:
            return {}
        given: dict[str, Any] = field.annotation.model_validate(model).model_dump(mode="json")  # type: ignore[union-attr]
        # The weights come from the source: the library's own need not be fetched.
        return {**given, "pretrained": False} if "pretrained" in given else given

    @property
    def is_stated(self) -> bool:
        """Return whether anything says which network this is; a default that was spelled out does."""
        return self.recipe != _ANY or "model" in self.model_fields_set

    def config(self, data: Data) -> ClassificationConfig:
        """Return a config of the recipe that builds this network for such data."""
        sections = {"data": data.model_dump(), **({"model": self.model} if self.model else {})}
        return _BUILT_BY[self.recipe].model_validate(sections)


class Tune(Section):
    """What is trained, and how fast."""

    head: Literal["auto", "new", "keep"] = Field(
        "auto", description="auto: the last layer is new unless the source has the same classes."
    )
    head_lr_factor: float = Field(
        10.0, gt=0, le=1e4, description="The last layer's learning rate over the body's, which is optim.lr."
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Learning rate of a stage of the body over that of the next one, so that the first learn slowest; "
        "1: all learn alike.",
    )
    freeze: Literal["none", "body", "stages"] = Field(
        "none", description="body: all but the last layer stays as it is; stages: the first freeze_stages do."
    )
    freeze_stages: int = Field(0, ge=0, le=200, description="Stages of the body, from the input on, that stay.")
    freeze_statistics: bool = Field(
        False, description="Also keep the means and variances of the body's batch norms; those of frozen parts stay."
    )

    @model_validator(mode="after")
    def _stages_belong_to_their_word(self) -> Self:
        if (self.freeze == "stages") != (self.freeze_stages > 0):
            raise ValueError("tune.freeze_stages must be above 0 with tune.freeze 'stages', and 0 otherwise")
        return self


class FinetuneConfig(ClassificationConfig):
    """A trained classifier tuned to other images: new last layer, slower body (Yosinski et al. 2014).

    `mae` is for the encoder of a masked autoencoder (He et al. 2022, appendix A.1; numbers of facebookresearch/mae), but
    for its drop path.
    """

    SOURCES: ClassVar[tuple[str, ...]] = (*_BUILT_BY, "classification/finetune", MASKED, WEIGHTS, TORCHVISION)
    NEEDS_SOURCE: ClassVar[bool] = True

    network: SourceNetwork = SourceNetwork()
    tune: Tune = Tune()
    optim: Optim = Optim(lr=5e-5, weight_decay=1e-3)
    schedule: Schedule = Schedule(name="cosine", warmup_steps=100)
    augment: Augment = Augment(trivial=True, erasing=0.1)
    limits: Limits = Limits(
        max_steps=5000, checkpoint_every_steps=500, evaluate_every_steps=500, sample_every_steps=1000
    )

    # No preset states a network: it would be taken for that of uploaded tensors, and mixed with what the user states.
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            # A little larger than what is seen: the crop shifts the digits.
            "data": {"image_size": 28, "stored_size": 30, "batch_size": 64},
            # The head comes with the source where the classes are the same: it needs no faster rate.
            "tune": {"head_lr_factor": 1.0},
            "optim": {"name": "adamw", "lr": 4e-3, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 10},
            "augment": _STILL,
            "limits": preset_limits(150),
        },
        "mae": {
            "tune": {"head_lr_factor": 1.0, "layer_decay": 0.65},
            # 5e-4 for every 256 images of a batch; a twentieth of the training is warm-up.
            "optim": {"name": "adamw", "lr": 5e-4 * 64 / 256, "weight_decay": 0.05},
            "schedule": {"name": "cosine", "warmup_steps": 250},
            "loss": {"label_smoothing": 0.1},
            "augment": {"trivial": True, "erasing": 0.25, "mixup": 0.8, "cutmix": 1.0},
        },
    }

    def adopt(self, origin: Origin) -> Self:
        if origin.kind == TORCHVISION:
            # `ResNet18_Weights.IMAGENET1K_V1` are weights of `resnet18`.
            name = origin.name.partition(":")[2].partition("_Weights")[0].lower()
            model = {"source": "torchvision", "name": name, "transform_input": name in OF_ANOTHER_SCALE}
            network = {"recipe": _ANY, "model": model}
        elif origin.kind == WEIGHTS:
            network = self._stated_network(origin)
        elif origin.recipe == "classification/finetune":
            network = origin.config["network"]
        elif origin.recipe == MASKED:
            network = self._masked_network(origin)
        else:
            network = {"recipe": origin.recipe, "model": origin.config.get("model", {})}
        channels = origin.config.get("data", {}).get("channels", 3)
        if origin.kind != WEIGHTS and channels != self.data.channels:
            raise ValueError(f"{origin.name} sees {channels} channels: set data.channels to {channels}")
        if origin.kind != WEIGHTS and network["recipe"] == _VIT:
            self._check_side(origin)
        completed = self.model_dump(mode="json") | {"network": network}
        try:
            adopted = type(self).model_validate(completed)
        except ValidationError as err:
            wrong = "; ".join(str(one["msg"]) for one in err.errors(include_url=False))
            raise ValueError(f"{origin.name} does not go with this config: {wrong}") from err
        # A whole preset, as the API shows it, spells the default out.
        if self.network not in (SourceNetwork(), adopted.network):
            said = _differences(self.network, adopted.network)
            raise ValueError(f"{origin.name} is of another network than network says ({said}): leave network out")
        return adopted

    def _masked_network(self, origin: Origin) -> dict[str, Any]:
        """Return the Vision Transformer that a masked autoencoder's encoder is the body of."""
        if self.tune.head == "keep":
            raise ValueError(f"{origin.name} is of {MASKED} and has no head to keep: set tune.head to auto")
        model = origin.config["model"]
        return {"recipe": _VIT, "model": {name: model[name] for name in ("patch", "dim", "depth", "heads", "mlp")}}

    def _check_side(self, origin: Origin) -> None:
        """Raise ValueError unless images have the size that the source's positions are for."""
        size = origin.config["data"]["image_size"]
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            text = "classifiers see squares: train it with data.image_size of two equal sides"
            raise ValueError(f"{origin.name} sees images of {height} x {width} pixels, and {text}")
        if height != self.data.image_size:
            text = f"data.image_size is {self.data.image_size}: set it to {height}, and data.stored_size to no less"
            raise ValueError(f"{origin.name} sees images of {height} x {height} pixels, and {text}")

    def _stated_network(self, origin: Origin) -> dict[str, Any]:
        if not self.network.is_stated:
            text = (
                f"{origin.name} are tensors and do not say of what network: set network.model, for example to"
                f' {{"source": "timm", "name": "resnet50"}}, and network.recipe where it is not of {_ANY}'
            )
            raise ValueError(text)
        return self.network.model_dump(mode="json")

    @model_validator(mode="after")
    def _network_fits_data(self) -> Self:
        if self.network.is_stated:
            self.network.config(self.data)
        return self


def _differences(stated: SourceNetwork, found: SourceNetwork) -> str:
    """Say what of a stated network is not as it was found."""
    if stated.recipe != found.recipe:
        return f"network.recipe is {stated.recipe}, there {found.recipe}"
    names = sorted(name for name in found.model if stated.model.get(name) != found.model[name])
    return ", ".join(f"network.model.{name} is {stated.model.get(name)}, there {found.model[name]}" for name in names)
