"""StyleGAN2's generator (Karras et al. 2020): z to w, and a style for every convolution.

Written from the papers, in plain convolutions. A modulated convolution scales its inputs, then its outputs, rather
than its weights: equal up to rounding (section 2.2), and one shared weight serves a batch of any size.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.gan.config import StyleModel
from workers.families.gan.generators import Generator
from workers.families.precision import full_precision

SLOPE = 0.2
GAIN = math.sqrt(2)
"""Keeps the scale of values through LeakyReLU."""


def style_channels(model: StyleModel, size: int) -> int:
    """Return how many maps a layer of this side has."""
    return max(1, min(model.channel_max, model.channel_base // size))


def activate(values: Tensor) -> Tensor:
    return functional.leaky_relu(values, SLOPE) * GAIN


class EqualLinear(nn.Module):
    """A linear layer whose weights are stored at unit scale, so that all layers learn equally fast."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, values: Tensor) -> Tensor:
        return functional.linear(values, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """A convolution with weights at unit scale; `bias` only where nothing adds one later."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.stride = stride
        # A stride follows a blur, which has padded already.
        self.padding = kernel // 2 if stride == 1 else 0

    def forward(self, maps: Tensor) -> Tensor:
        return functional.conv2d(maps, self.weight * self.scale, self.bias, self.stride, self.padding)


class Blur(nn.Module):
    """The low-pass filter [1, 3, 3, 1] in both directions, with `pad` zeros before and after."""

    kernel: Tensor

    def __init__(self, *, pad: tuple[int, int], gain: float = 1.0) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        plane = torch.outer(taps, taps)
        self.register_buffer("kernel", gain * plane / plane.sum(), persistent=False)
        self.pad = pad

    def forward(self, maps: Tensor) -> Tensor:
        padded = functional.pad(maps, (*self.pad, *self.pad))
        weight = self.kernel.to(maps.dtype).expand(maps.shape[1], 1, -1, -1)
        return functional.conv2d(padded, weight, groups=maps.shape[1])


class ModulatedConv(nn.Module):
    """A convolution whose input maps are scaled by a style, and whose outputs are brought back to unit scale."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, style_size: int, is_up: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.style = EqualLinear(style_size, inputs, bias=1.0)
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.padding = kernel // 2
        self.demodulate = demodulate
        self.blur = Blur(pad=(1, 1), gain=4.0) if is_up else None

    def forward(self, maps: Tensor, w: Tensor) -> Tensor:
        """Return maps (N, O, H, W), or of twice the side, from maps (N, I, H, W) and styles w (N, S)."""
        style = self.style(w)
        weight = self.weight * self.scale
        maps = maps * style[:, :, None, None].to(maps.dtype)
        if self.blur is None:
            maps = functional.conv2d(maps, weight, padding=self.padding)
        else:
            maps = self.blur(functional.conv_transpose2d(maps, weight.transpose(0, 1), stride=2))
        if not self.demodulate:
            return maps
        # Squares of half-precision numbers lose too much, and so does their product.
        with full_precision(style.device):
            squares = style.float().square() @ weight.float().square().sum((2, 3)).t()
        return maps * torch.rsqrt(squares + 1e-8)[:, :, None, None].to(maps.dtype)


class StyledConv(nn.Module):
    """A modulated convolution, noise of learned strength, a bias and LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, *, style_size: int, is_up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style_size=style_size, is_up=is_up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, maps: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        maps = self.conv(maps, w)
        return activate(maps + self.strength * noise + self.bias[:, None, None])


class ToImage(nn.Module):
    """A layer's share of the image, added to the enlarged image so far."""

    def __init__(self, inputs: int, channels: int, *, style_size: int, has_skip: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, channels, 1, style_size=style_size, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False) if has_skip else None

    def forward(self, maps: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        out: Tensor = self.conv(maps, w) + self.bias[:, None, None]
        if self.enlarge is not None and image is not None:
            out = out + self.enlarge(image)
        return out


class Mapping(nn.Module):
    """z, brought to unit length per feature, through linear layers to w."""

    def __init__(self, model: StyleModel) -> None:
        super().__init__()
        size, rate = model.latent_size, model.mapping_rate
        self.layers = nn.ModuleList(EqualLinear(size, size, rate=rate) for _ in range(model.mapping_layers))

    def forward(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            w = activate(layer(w))
        return w


class StyleGenerator(Generator):
    """Constant 4 x 4 maps, two styled convolutions a resolution, and skips to the image.

    Styles are numbered coarse to fine: convolution n takes style n, and an image layer the one after its last.
    """

    mean_w: Tensor

    def __init__(self, model: StyleModel, *, size: int, channels: int) -> None:
        super().__init__()
        self.latent_size = model.latent_size
        sides = [4 * 2**n for n in range(int(math.log2(size)) - 1)]
        widths = [style_channels(model, side) for side in sides]
        self.mapping = Mapping(model)
        self.start = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.convs, self.images = nn.ModuleList(), nn.ModuleList()
        for n, width in enumerate(widths):
            if n:
                self.convs.append(StyledConv(widths[n - 1], width, style_size=model.latent_size, is_up=True))
            self.convs.append(StyledConv(width, width, style_size=model.latent_size))
            self.images.append(ToImage(width, channels, style_size=model.latent_size, has_skip=n > 0))
        self.noise_sides = [4, *(side for side in sides[1:] for _ in range(2))]
        self.register_buffer("mean_w", torch.zeros(model.latent_size))
        for n, noise in enumerate(drawn_noises(self.noise_sides, 1, seed=0)):
            self.register_buffer(f"noise_{n}", noise)

    @property
    def style_count(self) -> int:
        """How many styles an image has."""
        return len(self.convs) + 1

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.synthesis(self.styles(self.mapping(z)))

    def styles(self, w: Tensor, *, psi: float | Tensor = 1.0) -> Tensor:
        """Return one w (N, S) as the styles of all layers (N, style_count, S), moved to the mean for psi below 1."""
        moved = self.mean_w + psi * (w - self.mean_w)
        return moved[:, None].expand(-1, self.style_count, -1)

    def synthesis(self, ws: Tensor, noise_seed: int = 0, *, noises: list[Tensor] | None = None) -> Tensor:
        """Return images of styles (N, style_count, S).

        Noise is `noises`, else one plane a layer for all images: those kept with the weights for seed 0, so that an
        image does not depend on what it is drawn beside.
        """
        if noises is None:
            noises = self.fixed_noises()
            if noise_seed != 0:
                noises = [noise.to(ws.device) for noise in drawn_noises(self.noise_sides, 1, seed=noise_seed)]
        maps, image = self.start.expand(len(ws), -1, -1, -1), None
        for n, conv in enumerate(self.convs):
            maps = conv(maps, ws[:, n], noises[n])
            if n % 2 == 0:  # the last of its resolution
                image = self.images[n // 2](maps, ws[:, n + 1], image)
        drawn = cast("Tensor", image)
        # In training a pixel beyond the range still needs its gradient.
        return drawn if self.training else drawn.clamp(-1, 1)

    def fixed_noises(self) -> list[Tensor]:
        """Return the noise planes kept with the weights, (1, 1, side, side) each."""
        return [self.get_buffer(f"noise_{n}") for n in range(len(self.noise_sides))]

    def random_noises(self, count: int) -> list[Tensor]:
        """Return fresh noise planes (count, 1, side, side) from the device's global generator."""
        return [torch.randn(count, 1, side, side, device=self.mean_w.device) for side in self.noise_sides]

    def hidden_layers(self) -> list[str]:
        return [f"convs.{n}" for n in range(len(self.convs))]


def drawn_noises(sides: list[int], count: int, *, seed: int) -> list[Tensor]:
    """Return noise planes (count, 1, side, side), the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, 1, side, side, generator=generator) for side in sides]
