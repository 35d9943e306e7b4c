"""What BicycleGAN adds to pix2pix's networks: an encoder, discriminators at several scales, and its served form."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.adversarial import small_weights
from workers.families.translation.config import BicycleModel
from workers.families.translation.networks import NORMS, SLOPE, PatchDiscriminator, Unet

_WIDEST = 4
"""Most maps of the encoder, over those of its first layer."""


class Encoder(nn.Module):
    """A picture to the mean and the logarithm of the variance of its code, (N, latent_size) each.

    Zhu et al. (2017b), section 4: a convolution and residual blocks, each of which halves the side, and a mean over what
    is left.
    """

    def __init__(self, *, width: int, blocks: int, latent_size: int) -> None:
        super().__init__()
        widths = [width * min(stage, _WIDEST) for stage in range(1, blocks + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1)]
        layers += [HalvingBlock(source, target) for source, target in itertools.pairwise(widths)]
        self.body = nn.Sequential(*layers, nn.LeakyReLU(SLOPE))
        self.mean = nn.Linear(widths[-1], latent_size)
        self.log_variance = nn.Linear(widths[-1], latent_size)
        self.apply(small_weights)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values = self.body(images).mean((2, 3))
        return self.mean(values), self.log_variance(values)


class HalvingBlock(nn.Module):
    """Two convolutions and a mean of every four pixels, beside the way past them."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.InstanceNorm2d(source),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(source, source, 3, padding=1),
            nn.InstanceNorm2d(source),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(source, target, 3, padding=1),
            nn.AvgPool2d(2),
        )
        self.past = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(source, target, 1))

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.layers(maps) + self.past(maps)
        return found


class ScaledDiscriminator(nn.Module):
    """Discriminators of patches at the full side, half of it with half as many maps, and so on."""

    def __init__(self, model: BicycleModel) -> None:
        super().__init__()
        channels = 6 if model.conditional else 3
        self.scales = nn.ModuleList(
            PatchDiscriminator(
                channels=channels,
                width=max(1, model.discriminator_width // 2**scale),
                layers=model.discriminator_layers,
                norm=None,
            )
            for scale in range(model.scales)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return a map of logits for each scale."""
        logits = []
        for judge in self.scales:
            logits.append(judge(images))
            images = functional.avg_pool2d(images, 3, stride=2, padding=1, count_include_pad=False)
        return tuple(logits)


class ManyWays(nn.Module):
    """Generator and encoder as one network, whose rows say everything an answer depends on.

    A row (7 + latent_size, H, W) is the input (3 maps), a picture whose style is taken (3 maps), a map that is 1 where it
    is, and the code to use where it is not, a map a value. Pictures (N, 3, H, W) and the codes used (N, latent_size) come
    out; of more rows the first says whether a style is taken.
    """

    def __init__(self, generator: Unet, encoder: Encoder | None) -> None:
        super().__init__()
        self.generator, self.encoder = generator, encoder

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        z = self._code(rows[:, 3:6], rows[:, 7:, 0, 0], rows[0, 6, 0, 0] > 0.5)
        return self.generator(rows[:, :3], z).float(), z

    def _code(self, style: Tensor, z: Tensor, takes_style: Tensor) -> Tensor:
        if self.encoder is None:
            return z
        if torch.compiler.is_exporting():
            found: Tensor = torch.cond(takes_style, self._encoded, _given, (style, z))
            return found
        return self._encoded(style, z) if bool(takes_style) else z

    def _encoded(self, style: Tensor, z: Tensor) -> Tensor:
        assert self.encoder is not None
        mean: Tensor = self.encoder(style)[0]
        return mean.to(z.dtype)


def _given(_style: Tensor, z: Tensor) -> Tensor:
    # A branch may not return what it was given.
    return z.clone()


def many_rows(image: Tensor, z: Tensor, *, style: Tensor | None = None) -> Tensor:
    """Return rows for one input (3, H, W) and codes (N, latent_size); with a style the codes have no effect."""
    sides = image.shape[1:]
    fixed = torch.cat([image, torch.zeros_like(image) if style is None else style])
    flag = torch.full((1, *sides), float(style is not None))
    codes = z[:, :, None, None].expand(-1, -1, *sides)
    return torch.cat([torch.cat([fixed, flag])[None].expand(len(z), -1, -1, -1), codes], 1)


def new_generator(model: BicycleModel) -> Unet:
    return Unet(width=model.width, depth=model.depth, norm=NORMS[model.norm], code=(model.latent_size, model.where))


def new_encoder(model: BicycleModel) -> Encoder:
    return Encoder(width=model.encoder_width, blocks=model.encoder_blocks, latent_size=model.latent_size)
