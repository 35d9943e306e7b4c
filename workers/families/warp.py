"""Random changes of a whole batch: geometry of images and masks, brightness and saturation.

`draw` decides on the host from a generator alone; `render` applies it on the images' device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.images import normalise_
from workers.families.sections import Warp


@dataclass(frozen=True, slots=True)
class Draw:
    """What happens to each image of a batch; all fields have one row an image.

    `zoom` is (x, y), negative in x for a mirror image, and `shift` is (x, y), both in the frame
    where the image spans -1 to 1; `colour` is (exposure, saturation).
    """

    zoom: Tensor
    shift: Tensor
    colour: Tensor

    def to(self, device: torch.device) -> Draw:
        """Return the same on another device."""
        return Draw(*(t.to(device, non_blocking=True) for t in (self.zoom, self.shift, self.colour)))

    def rows(self, rows: slice) -> Draw:
        """Return what happens to some of the images."""
        return Draw(self.zoom[rows], self.shift[rows], self.colour[rows])


def draw(num_images: int, config: Warp, generator: torch.Generator) -> Draw:
    """Draw the changes of one batch; depends on the generator's state alone."""
    zoom, stretch, mirror, x, y, exposure, saturation = torch.rand((7, num_images), generator=generator)
    low, high = config.scale
    factor = torch.exp(math.log(low) + zoom * math.log(high / low))
    half_stretch = torch.exp((stretch - 0.5) * math.log(config.aspect))
    sign = torch.where(mirror < config.flip, -1.0, 1.0)
    shift = torch.stack([x, y], dim=1).mul(2).sub(1) * (2 * config.translate)
    limits = torch.tensor([config.exposure, config.saturation]).log()
    colour = torch.exp((torch.stack([exposure, saturation], dim=1) * 2 - 1) * limits)
    return Draw(
        zoom=torch.stack([factor * half_stretch * sign, factor / half_stretch], dim=1), shift=shift, colour=colour
    )


def render(images: Tensor, drawn: Draw, config: Warp) -> Tensor:
    """Return uint8 images (N, 3, S, S) changed as drawn and normalised for the network."""
    pixels = images.float()
    if config.exposure > 1 or config.saturation > 1:
        exposure, saturation = drawn.colour[:, :, None, None, None].unbind(1)
        # In HSV a colour is value - saturation * something: pulling it to its largest channel scales only saturation.
        value = pixels.amax(1, keepdim=True)
        pixels = torch.lerp(value, pixels, saturation).mul_(exposure).clamp_(0, 255)
    pixels = normalise_(pixels)
    if not config.moves_pixels:
        return pixels
    # Zeros from outside are the mean colour, which is also what fills a fitted image.
    return functional.grid_sample(pixels, _sampling_grid(drawn, pixels.shape[-1]), align_corners=False)


def render_masks(masks: Tensor, drawn: Draw, config: Warp, *, outside: int) -> Tensor:
    """Return uint8 masks (N, S, S) moved as their images were; `outside` fills what no mask covers."""
    if not config.moves_pixels:
        return masks
    # Counted from `outside` on, so that the zeros of grid_sample mean it.
    shifted = (masks.int() - outside).float()[:, None]
    grid = _sampling_grid(drawn, masks.shape[-1])
    moved = functional.grid_sample(shifted, grid, mode="nearest", align_corners=False)
    return (moved[:, 0].round().int() + outside).to(torch.uint8)


def _sampling_grid(drawn: Draw, size: int) -> Tensor:
    """Return where each pixel of the changed square comes from: (N, S, S, 2), from -1 to 1."""
    line = (torch.arange(size, device=drawn.zoom.device) * 2 + 1) / size - 1
    x, y = ((line - drawn.shift[:, axis, None]) / drawn.zoom[:, axis, None] for axis in (0, 1))
    return torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
