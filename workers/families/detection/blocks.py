"""Convolutional blocks and the small body that both recipes offer."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from workers.families.detection.config import SmallBody

LEAKY_SLOPE = 0.1


def conv_block(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, padding: int | None = None, batch_norm: bool = True
) -> nn.Sequential:
    """Return convolution, optional batch norm and leaky ReLU; keeps the size at stride 1."""
    pad = kernel // 2 if padding is None else padding
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.LeakyReLU(LEAKY_SLOPE, inplace=True))


class SmallNetwork(nn.Module):
    """A stem and stages that each halve the image by max pooling; gives the feature map of every stage."""

    def __init__(self, config: SmallBody, *, batch_norm: bool = True) -> None:
        super().__init__()
        self.stem = _Stem(config.stem_width, kernel=config.stem_kernel, batch_norm=batch_norm)
        self.stages = nn.ModuleList()
        width = config.stem_width
        for wider, depth in config.stages:
            widths = [width, *[wider] * depth]
            blocks = [conv_block(a, b, batch_norm=batch_norm) for a, b in pairwise(widths)]
            self.stages.append(nn.Sequential(nn.MaxPool2d(2), *blocks))
            width = wider

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [self.stem(images)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


class _Stem(nn.Module):
    """Strided filters of which only the strength counts.

    Dark on light and light on dark look alike from the first step on; with max pooling behind it,
    digits in inks of both kinds are told apart sooner than with strided convolutions.
    """

    def __init__(self, width: int, *, kernel: int, batch_norm: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, kernel, 2, kernel // 2 - 1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        strength: Tensor = self.norm(self.convolution(images))
        return strength.abs()
