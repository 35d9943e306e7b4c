"""Convolutional blocks and the small body that both recipes offer."""

from __future__ import annotations

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
    """A stem and stages that halve the image; gives the feature map of every stage."""

    def __init__(self, config: SmallBody, *, batch_norm: bool = True) -> None:
        super().__init__()
        width, stride = config.widths[0], config.stem_stride
        stem = conv_block(3, width, kernel=stride + 2, stride=stride, padding=1, batch_norm=batch_norm)
        stages = [nn.Sequential(stem, *_same(width, config.depth, batch_norm))]
        for wider in config.widths[1:]:
            down = conv_block(width, wider, stride=2, batch_norm=batch_norm)
            stages.append(nn.Sequential(down, *_same(wider, config.depth, batch_norm)))
            width = wider
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


class _Residual(nn.Module):
    def __init__(self, width: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.block = conv_block(width, width, batch_norm=batch_norm)

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.block(features)
        return features + changed


def _same(width: int, depth: int, batch_norm: bool) -> list[nn.Module]:
    return [_Residual(width, batch_norm=batch_norm) for _ in range(depth)]
