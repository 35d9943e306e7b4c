"""The networks of pix2pix and CycleGAN: U-Net, residual generator and discriminators of patches.

Pictures are (N, 3, H, W) of the range of Tanh.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from workers.families.adversarial import small_weights
from workers.families.borders import Mirrored

SLOPE = 0.2
_WIDEST = 8
"""Most maps of a layer, over those of the first."""

Norm = Callable[[int], nn.Module]


def batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


def instance_norm(channels: int) -> nn.Module:
    """Normalise each image by itself, with a scale and a shift as batch normalisation has."""
    return nn.InstanceNorm2d(channels, affine=True)


NORMS = {"batch": batch_norm, "instance": instance_norm}


class Unet(nn.Module):
    """Isola et al. (2017), section 6.1.1: 4 x 4 convolutions, each stage joined to its mirror.

    A code z, where there is one, is tiled and joined to the picture (`input`) or to what every stage down gets
    (`all`), as Zhu et al. (2017b), section 3.4, have it.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        norm: Norm = instance_norm,
        dropout: float = 0.0,
        channels: int = 3,
        drawn: int = 3,
        code: tuple[int, str] = (0, "input"),
    ) -> None:
        super().__init__()
        size, place = code
        self.code_everywhere = place == "all"
        widths = [width * min(2**stage, _WIDEST) for stage in range(depth)]
        entries = [channels, *widths]
        joined = [size if stage == 0 or self.code_everywhere else 0 for stage in range(depth)]
        self.down = nn.ModuleList(
            _stage_down(
                entries[stage] + joined[stage],
                widths[stage],
                norm=None if stage in (0, depth - 1) else norm,
                is_first=stage == 0,
            )
            for stage in range(depth)
        )
        # The way back begins at the bottom, whose maps have no mirror.
        ups: list[nn.Module] = []
        for stage in reversed(range(1, depth)):
            source = widths[stage] * (1 if stage == depth - 1 else 2)
            # The widest stages but the one at the bottom.
            rate = dropout if stage < depth - 1 and widths[stage - 1] == widths[stage] else 0.0
            ups.append(_stage_up(source, widths[stage - 1], norm=norm, dropout=rate))
        ups.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, drawn, 4, stride=2, padding=1), nn.Tanh()))
        self.up = nn.ModuleList(ups)
        self.apply(small_weights)

    def forward(self, images: Tensor, z: Tensor | None = None) -> Tensor:
        """`z` are codes (N, size), where the network was built for one."""
        maps = [images]
        for number, stage in enumerate(self.down):
            has_code = z is not None and (number == 0 or self.code_everywhere)
            maps.append(stage(_joined(maps[-1], z) if has_code and z is not None else maps[-1]))
        back = maps.pop()
        for number, stage in enumerate(self.up):
            back = stage(back if number == 0 else torch.cat([maps.pop(), back], 1))
        return back


def _joined(maps: Tensor, z: Tensor) -> Tensor:
    return torch.cat([maps, z.to(maps.dtype)[:, :, None, None].expand(-1, -1, *maps.shape[2:])], 1)


def _stage_down(source: int, target: int, *, norm: Norm | None, is_first: bool) -> nn.Sequential:
    layers: list[nn.Module] = [] if is_first else [nn.LeakyReLU(SLOPE)]
    layers.append(nn.Conv2d(source, target, 4, stride=2, padding=1, bias=False))
    return nn.Sequential(*layers, *([norm(target)] if norm else []))


def _stage_up(source: int, target: int, *, norm: Norm, dropout: float) -> nn.Sequential:
    layers = [nn.ReLU(), nn.ConvTranspose2d(source, target, 4, stride=2, padding=1, bias=False), norm(target)]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))


class ResnetGenerator(nn.Module):
    """Zhu et al. (2017), section 7.2: a quarter of the side, residual blocks, and back."""

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Mirrored(3), nn.Conv2d(3, width, 7), *_plain_norm(width)]
        for wide in (2 * width, 4 * width):
            layers += [nn.Conv2d(wide // 2, wide, 3, stride=2, padding=1), *_plain_norm(wide)]
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for wide in (2 * width, width):
            up = nn.ConvTranspose2d(2 * wide, wide, 3, stride=2, padding=1, output_padding=1)
            layers += [up, *_plain_norm(wide)]
        layers += [Mirrored(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(small_weights)

    def forward(self, images: Tensor) -> Tensor:
        drawn: Tensor = self.layers(images)
        return drawn


class ResidualBlock(nn.Module):
    """Two convolutions beside the way past them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for is_last in (False, True):
            layers += [Mirrored(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
            layers += [] if is_last else [nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.layers(maps)
        return maps + changed


def _plain_norm(channels: int) -> list[nn.Module]:
    # As the paper's, without scale and shift; the biases before it do nothing, and are kept for its 11.38 M parameters.
    return [nn.InstanceNorm2d(channels), nn.ReLU()]


class PatchDiscriminator(nn.Module):
    """A map of logits (N, 1, h, w), each of one patch (Isola et al. 2017, section 6.1.2)."""

    def __init__(self, *, channels: int, width: int, layers: int, norm: Norm | None) -> None:
        """Without `norm` layers are normalised an image at a time, without scale and shift."""
        super().__init__()
        steps: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        source = width
        for layer in range(1, layers + 1):
            target = width * min(2**layer, _WIDEST)
            stride = 1 if layer == layers else 2
            steps.append(nn.Conv2d(source, target, 4, stride=stride, padding=1, bias=norm is None))
            steps += [nn.InstanceNorm2d(target) if norm is None else norm(target), nn.LeakyReLU(SLOPE)]
            source = target
        self.steps = nn.Sequential(*steps, nn.Conv2d(source, 1, 4, padding=1))
        self.apply(small_weights)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.steps(images)
        return logits


def patch_side(layers: int) -> int:
    """Return how many pixels of a side one logit of a `PatchDiscriminator` sees."""
    seen = 1
    for stride in [1, 1, *[2] * layers]:
        seen = (seen - 1) * stride + 4
    return seen


def count_parameters(network: nn.Module) -> int:
    return sum(math.prod(value.shape) for value in network.parameters())
