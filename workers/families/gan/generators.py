"""The generators, and how one is built from a config. All of them map z (N, latent_size) to the range of Tanh.

Shapes: N samples, C channels, H x W pixels; points are (N, D).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.adversarial import small_weights
from workers.families.gan.config import (
    CelebaConvConfig,
    CganConfig,
    DcganConfig,
    FcModel,
    GanConfig,
    LapganConfig,
    StyleganConfig,
    WideModel,
)

POINT_SIZE = 2
"""Dimensions of the points that a generator makes; tables of points have as many columns."""

LAP_START = 2
"""Side of the maps that LAPGAN's bottom starts from: its images are too small for the usual 4."""


class Generator(nn.Module, ABC):
    """Noise in, images or points out; a pure function of z and the class."""

    latent_size: int
    class_count: int = 0
    """0: there are no classes to choose from."""

    @abstractmethod
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images (N, C, H, W) from -1 to 1, or points (N, D). `labels` are int64 (N,), one a sample."""

    @abstractmethod
    def hidden_layers(self) -> list[str]:
        """Return the names of modules whose output maps (N, K, H, W), or units (N, K), can be silenced, in order."""


class FcGenerator(Generator):
    """Linear layers from z to all pixels at once, or to points."""

    def __init__(self, model: FcModel, *, shape: tuple[int, ...], is_bounded: bool = True) -> None:
        super().__init__()
        self.latent_size = model.latent_size
        self.shape = shape
        self.is_bounded = is_bounded
        self.hidden = hidden_linear(model, model.latent_size, model.generator_widths)
        self.last = nn.Linear((model.latent_size, *model.generator_widths)[-1], math.prod(shape))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        for layer in self.hidden:
            z = layer(z)
        out: Tensor = self.last(z).unflatten(1, self.shape)
        return out.tanh() if self.is_bounded else out

    def hidden_layers(self) -> list[str]:
        return [f"hidden.{n}" for n in range(len(self.hidden))]


class ConvGenerator(Generator):
    """DCGAN's: `start` x `start` maps from z, then the side doubles with every transposed convolution.

    With `label_size` a vector of that length is joined to z.
    """

    def __init__(
        self,
        latent_size: int,
        *,
        size: int,
        channels: int,
        width: int,
        start: int = 4,
        label_size: int = 0,
        class_count: int = 0,
    ) -> None:
        super().__init__()
        self.latent_size, self.class_count = latent_size, class_count
        self.embedding = nn.Embedding(class_count, label_size) if class_count else None
        stages = int(math.log2(size // start))
        widths = [width * 2**n for n in reversed(range(stages))]
        first = nn.ConvTranspose2d(latent_size + label_size, widths[0], start, bias=False)
        self.blocks = nn.ModuleList([_block(first)])
        for narrow in widths[1:]:
            up = nn.ConvTranspose2d(2 * narrow, narrow, 4, stride=2, padding=1, bias=False)
            self.blocks.append(_block(up))
        self.last = nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1, bias=False)
        self.apply(small_weights)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(_known(labels))], 1)
        maps = z[:, :, None, None]
        for block in self.blocks:
            maps = block(maps)
        out: Tensor = self.last(maps)
        return out.tanh()

    def hidden_layers(self) -> list[str]:
        return [f"blocks.{n}" for n in range(len(self.blocks))]


class WideGenerator(Generator):
    """The lesson's: three maps from z, then transposed convolutions with 8 x 8 kernels."""

    def __init__(self, model: WideModel, *, image_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.latent_size = model.latent_size
        # A stride doubles a side and adds 6; the last takes 2 off again.
        self.start = (channels, (image_size[0] - 40) // 8, (image_size[1] - 40) // 8)
        self.first = nn.Sequential(nn.Linear(model.latent_size, math.prod(self.start)), nn.LeakyReLU(model.slope))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(narrow, model.channels, 8, stride=2),
                nn.BatchNorm2d(model.channels),
                nn.LeakyReLU(model.slope),
            )
            for narrow in (channels, model.channels)
        )
        self.last = nn.ConvTranspose2d(model.channels, channels, 8, stride=2, padding=1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        maps = self.first(z).unflatten(1, self.start)
        for block in self.blocks:
            maps = block(maps)
        out: Tensor = self.last(maps)
        return out.tanh()

    def hidden_layers(self) -> list[str]:
        return [f"blocks.{n}" for n in range(len(self.blocks))]


class Refiner(nn.Module):
    """A level of LAPGAN: the blurred image and a plane of noise in, the missing detail out."""

    def __init__(self, *, channels: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(narrow, width, 7, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for narrow in (channels + 1, width)
        )
        self.last = nn.Conv2d(width, channels, 5, padding=2)
        self.apply(small_weights)

    def forward(self, blurred: Tensor, noise: Tensor) -> Tensor:
        """Return detail (N, C, H, W) for a blurred image of that shape and noise (N, 1, H, W)."""
        maps = torch.cat([blurred, noise], 1)
        for block in self.blocks:
            maps = block(maps)
        detail: Tensor = self.last(maps)
        return detail


class LapGenerator(Generator):
    """LAPGAN's chain: a small image from the bottom, then at each level up-sampled plus detail.

    z holds the bottom's latent first, then the noise plane of every level, coarse to fine.
    """

    def __init__(self, config: LapganConfig) -> None:
        super().__init__()
        model, channels = config.model, config.data.channels
        self.sizes = lap_sizes(config)
        self.base_latent = model.latent_size
        self.latent_size = model.latent_size + sum(size**2 for size in self.sizes[1:])
        self.base = ConvGenerator(
            model.latent_size, size=model.base_size, channels=channels, width=model.base_channels, start=LAP_START
        )
        self.levels = nn.ModuleList(Refiner(channels=channels, width=model.level_channels) for _ in self.sizes[1:])

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.stages(z)[-1]

    def stages(self, z: Tensor) -> list[Tensor]:
        """Return the image of every level, coarse to fine."""
        planes = torch.split(z[:, self.base_latent :], [size**2 for size in self.sizes[1:]], dim=1)
        images = [self.base(z[:, : self.base_latent])]
        for level, size, plane in zip(self.levels, self.sizes[1:], planes, strict=True):
            blurred = enlarge(images[-1])
            images.append((blurred + level(blurred, plane.reshape(-1, 1, size, size))).clamp(-1, 1))
        return images

    def hidden_layers(self) -> list[str]:
        levels = [f"levels.{n}.blocks.{m}" for n in range(len(self.levels)) for m in range(2)]
        return [*(f"base.{name}" for name in self.base.hidden_layers()), *levels]


def build_generator(config: GanConfig, class_count: int = 0, image_size: tuple[int, int] | None = None) -> Generator:
    """Build the generator of any recipe of the family with fresh weights; `image_size` is the config's if not given."""
    from workers.families.gan.style import StyleGenerator

    size, channels = image_size or config.data.image_size, config.data.channels
    match config:
        case StyleganConfig():
            return StyleGenerator(config.model, size=size[0], channels=channels)
        case LapganConfig():
            return LapGenerator(config)
        case CganConfig(model=model):
            return ConvGenerator(
                model.latent_size,
                size=size[0],
                channels=channels,
                width=model.generator_channels,
                label_size=model.embedding,
                class_count=class_count,
            )
        case DcganConfig(model=model):
            return ConvGenerator(model.latent_size, size=size[0], channels=channels, width=model.generator_channels)
        case CelebaConvConfig(model=wide):
            return WideGenerator(wide, image_size=size, channels=channels)
    fc: FcModel = config.model  # type: ignore[attr-defined]
    if config.data.source == "points":
        return FcGenerator(fc, shape=(POINT_SIZE,), is_bounded=False)
    return FcGenerator(fc, shape=(channels, *size))


def hidden_linear(model: FcModel, inputs: int, widths: Sequence[int]) -> nn.ModuleList:
    """Return linear layers with the model's activation and, if it has that, layer normalisation."""
    layers = nn.ModuleList()
    for width in widths:
        activation = nn.Tanh() if model.activation == "tanh" else nn.LeakyReLU(model.slope)
        parts: list[nn.Module] = [nn.Linear(inputs, width), activation]
        layers.append(nn.Sequential(*parts, *([nn.LayerNorm(width)] if model.norm else [])))
        inputs = width
    return layers


def lap_sizes(config: LapganConfig) -> list[int]:
    """Return the sides of the pyramid's images, coarse to fine."""
    sizes = [config.model.base_size]
    while sizes[-1] < config.data.image_size[0]:
        sizes.append(2 * sizes[-1])
    return sizes


def enlarge(images: Tensor) -> Tensor:
    """Return images of twice the side, smoothly."""
    return functional.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)


def shrink(images: Tensor) -> Tensor:
    """Return images of half the side: the mean of every four pixels."""
    return functional.avg_pool2d(images, 2)


def _block(up: nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(up, nn.BatchNorm2d(up.out_channels), nn.ReLU())


def _known(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("a conditional generator needs labels: one class a sample")
    return labels
