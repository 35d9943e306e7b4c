"""Random changes of a whole batch: geometry of images and boxes, brightness and saturation.

`draw` decides on the host from a generator alone; `render` applies it on the images' device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.detection.config import Augment
from workers.families.images import normalise_


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


def draw(num_images: int, config: Augment, generator: torch.Generator) -> Draw:
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


def move_boxes(boxes: Tensor, labels: Tensor, drawn: Draw, *, size: int, min_visible: float) -> tuple[Tensor, Tensor]:
    """Move boxes (N, M, 4) with their images; those mostly outside get label 0 and a zero box."""
    zoom, shift = drawn.zoom[:, None, None], drawn.shift[:, None, None]
    corners = (boxes.reshape(*boxes.shape[:-1], 2, 2) * (2 / size) - 1) * zoom + shift
    corners = (corners + 1) * (size / 2)
    low, high = corners.amin(2), corners.amax(2)
    moved = torch.cat([low, high], dim=-1)
    inside = moved.clamp(0, size)
    full, kept = (high - low).prod(-1), (inside[..., 2:] - inside[..., :2]).prod(-1)
    visible = (labels > 0) & (kept >= min_visible * full) & ((inside[..., 2:] - inside[..., :2]).amin(-1) >= 1)
    return inside * visible[..., None], labels * visible


def render(images: Tensor, drawn: Draw, config: Augment) -> Tensor:
    """Return uint8 images (N, 3, S, S) changed as drawn and normalised for the network."""
    pixels = images.float()
    if config.exposure > 1 or config.saturation > 1:
        exposure, saturation = drawn.colour[:, :, None, None, None].unbind(1)
        # In HSV a colour is value - saturation * something: pulling it to its largest channel scales only saturation.
        value = pixels.amax(1, keepdim=True)
        pixels = torch.lerp(value, pixels, saturation).mul_(exposure).clamp_(0, 255)
    pixels = normalise_(pixels)
    if config.scale == (1.0, 1.0) and config.aspect == 1 and config.translate == 0 and config.flip == 0:
        return pixels
    # Zeros from outside are the mean colour, which is also what fills a fitted image.
    return functional.grid_sample(pixels, _sampling_grid(drawn, pixels.shape[-1]), align_corners=False)


def _sampling_grid(drawn: Draw, size: int) -> Tensor:
    """Return where each pixel of the changed square comes from: (N, S, S, 2), from -1 to 1."""
    line = (torch.arange(size, device=drawn.zoom.device) * 2 + 1) / size - 1
    x, y = ((line - drawn.shift[:, axis, None]) / drawn.zoom[:, axis, None] for axis in (0, 1))
    return torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
