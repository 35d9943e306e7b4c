"""The discriminators: images or points in, one logit a sample out. Normalised ones see real and generated apart."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.adversarial import small_weights
from workers.families.gan.config import CganModel, FcModel, WideModel
from workers.families.gan.generators import hidden_linear

SLOPE = 0.2


class Discriminator(nn.Module, ABC):
    """Tells real samples (high) from generated ones (low)."""

    @abstractmethod
    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits (N,) of samples (N, ...); `labels` int64 (N,) where samples have classes."""


class FcDiscriminator(Discriminator):
    """Linear layers over all pixels, or over a point."""

    def __init__(self, model: FcModel, *, inputs: int) -> None:
        super().__init__()
        self.hidden = hidden_linear(model, inputs, model.discriminator_widths)
        self.last = nn.Linear((inputs, *model.discriminator_widths)[-1], 1)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        values = samples.flatten(1)
        for layer in self.hidden:
            values = layer(values)
        logits: Tensor = self.last(values)
        return logits[:, 0]


class ConvDiscriminator(Discriminator):
    """DCGAN's mirror: the side halves with every convolution down to `end` x `end`, then one logit.

    Of `class_count` classes it is told by one constant map a class beside the image, or by a projection
    (Miyato and Koyama 2018): the product of the class's vector with the mean of the last maps.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        width: int,
        has_norm: bool = True,
        class_count: int = 0,
        is_projection: bool = False,
        end: int = 4,
    ) -> None:
        super().__init__()
        self.class_count = class_count
        stages = int(math.log2(size // end))
        widths = [width * 2**n for n in range(stages)]
        first = channels + (0 if is_projection else class_count)
        layers: list[nn.Module] = [nn.Conv2d(first, width, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(SLOPE)]
        for wide in widths[1:]:
            layers.append(nn.Conv2d(wide // 2, wide, 4, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(wide), nn.LeakyReLU(SLOPE)] if has_norm else [nn.LeakyReLU(SLOPE)]
        self.body = nn.Sequential(*layers)
        self.last = nn.Conv2d(widths[-1], 1, end, bias=False)
        self.embedding = nn.Embedding(class_count, widths[-1]) if class_count and is_projection else None
        self.apply(small_weights)

    @classmethod
    def conditional(
        cls, model: CganModel, *, size: int, channels: int, class_count: int, has_norm: bool
    ) -> ConvDiscriminator:
        return cls(
            size=size,
            channels=channels,
            width=model.discriminator_channels,
            has_norm=has_norm,
            class_count=class_count,
            is_projection=model.condition == "projection",
        )

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.class_count and self.embedding is None:
            assert labels is not None
            planes = functional.one_hot(labels, self.class_count).to(samples.dtype)[:, :, None, None]
            samples = torch.cat([samples, planes.expand(-1, -1, *samples.shape[2:])], 1)
        maps = self.body(samples)
        logits: Tensor = self.last(maps).flatten()
        if self.embedding is None:
            return logits
        assert labels is not None
        projected: Tensor = maps.mean((2, 3)) * self.embedding(labels)
        return logits + projected.sum(1)


class WideDiscriminator(Discriminator):
    """The lesson's: three convolutions with 8 x 8 kernels and a linear layer."""

    def __init__(self, model: WideModel, *, image_size: tuple[int, int], channels: int, has_norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for narrow in (channels, model.channels):
            layers.append(nn.Conv2d(narrow, model.channels, 8, stride=2))
            layers += [nn.BatchNorm2d(model.channels)] if has_norm else []
            layers.append(nn.LeakyReLU(model.slope))
        layers += [nn.Conv2d(model.channels, channels, 8, stride=2), nn.LeakyReLU(model.slope)]
        self.body = nn.Sequential(*layers)
        height, width = (_strided(side) for side in image_size)
        self.last = nn.Linear(channels * height * width, 1)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.last(self.body(samples).flatten(1))
        return logits[:, 0]


class LevelDiscriminator(Discriminator):
    """A level of LAPGAN: sees an image beside its blurred form, so that it judges the detail."""

    def __init__(self, *, size: int, channels: int, width: int, has_norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2 * channels, width, 5, padding=2), nn.LeakyReLU(SLOPE)]
        layers.append(nn.Conv2d(width, width, 5, stride=2, padding=2, bias=not has_norm))
        layers += [nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE)] if has_norm else [nn.LeakyReLU(SLOPE)]
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(width * (size // 2) ** 2, 1)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        """`samples` are pairs (N, 2C, H, W): the image, then its blurred form."""
        logits: Tensor = self.last(self.body(samples).flatten(1))
        return logits[:, 0]


def fc_discriminator(model: FcModel, shape: tuple[int, ...]) -> FcDiscriminator:
    """Return the discriminator of samples of this shape."""
    return FcDiscriminator(model, inputs=math.prod(shape))


def _strided(side: int) -> int:
    for _ in range(3):
        side = (side - 8) // 2 + 1
    return side
