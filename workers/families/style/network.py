"""The transform network of fast style transfer (Johnson et al. 2016, arXiv:1603.08155, supplementary table 1).

As the reference of today builds it (pytorch/examples, fast_neural_style): instance normalisation in place of batch
normalisation (Ulyanov et al. 2016), nearest up-sampling and a convolution in place of transposed ones, whose
checkerboards it avoids, and mirrored borders. Convolutions that are normalised have no bias, which that takes away.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from workers.families.borders import mirrored
from workers.families.style.config import FastModel


class _Convolution(nn.Conv2d):
    """Keeps the size, but for its stride."""

    def __init__(self, channels: tuple[int, int], kernel: int, *, stride: int = 1, bias: bool = False) -> None:
        super().__init__(*channels, kernel, stride=stride, bias=bias)
        self._border = kernel // 2

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(mirrored(images, self._border))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _Convolution((width, width), 3),
            nn.InstanceNorm2d(width, affine=True),
            nn.ReLU(inplace=True),
            _Convolution((width, width), 3),
            nn.InstanceNorm2d(width, affine=True),
        )

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = maps + self.body(maps)
        return found


class _Doubled(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return functional.interpolate(maps, scale_factor=2.0, mode="nearest")


class TransformNetwork(nn.Module):
    """Normalised images (N, 3, H, W), sides multiples of 4, to repainted ones of the same size and scale."""

    def __init__(self, model: FastModel) -> None:
        super().__init__()
        width = model.width
        self.down = nn.Sequential(
            *_normalised(_Convolution((3, width), 9)),
            *_normalised(_Convolution((width, 2 * width), 3, stride=2)),
            *_normalised(_Convolution((2 * width, 4 * width), 3, stride=2)),
        )
        self.blocks = nn.Sequential(*(_Residual(4 * width) for _ in range(model.residual_blocks)))
        self.up = nn.Sequential(
            _Doubled(),
            *_normalised(_Convolution((4 * width, 2 * width), 3)),
            _Doubled(),
            *_normalised(_Convolution((2 * width, width), 3)),
            _Convolution((width, 3), 9, bias=True),
        )

    def forward(self, images: Tensor) -> Tensor:
        painted: Tensor = self.up(self.blocks(self.down(images)))
        return painted.float()


def _normalised(convolution: _Convolution) -> tuple[nn.Module, ...]:
    return convolution, nn.InstanceNorm2d(convolution.out_channels, affine=True), nn.ReLU(inplace=True)
