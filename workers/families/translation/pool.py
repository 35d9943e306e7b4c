"""A pool of generated images that are shown to a discriminator once more (Shrivastava et al. 2017, section 2.3).

What it holds is a tensor of `TrainState.tensors`, and how full it is follows from the step, so that a resume goes on
with the very same pool.
"""

from __future__ import annotations

import torch
from torch import Tensor


def new_pool(size: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.zeros(size, *shape, device=device)


def exchange(pool: Tensor, images: Tensor, *, seen: int) -> Tensor:
    """Return as many images (N, C, H, W) to judge: of a full pool every other one, in the mean, is an older one.

    The older one's place is taken by the image that it is shown instead of. `seen` counts the images before these:
    the first fill the pool and are shown themselves.
    """
    size = len(pool)
    if not size:
        return images
    draws, places = torch.rand(len(images)).tolist(), torch.randint(size, (len(images),)).tolist()
    shown = []
    for number, image in enumerate(images):
        filled = seen + number
        if filled < size:
            pool[filled].copy_(image)
            shown.append(image)
        elif draws[number] < 0.5:
            shown.append(pool[places[number]].clone())
            pool[places[number]].copy_(image)
        else:
            shown.append(image)
    return torch.stack(shown)
