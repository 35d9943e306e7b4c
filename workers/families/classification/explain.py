"""Where a network saw a class: Grad-CAM by gradients, of any classifier that keeps track of places.

It needs the network as modules, since a stored form has no gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from workers.families.classification.network import Classifier

# What these give was seen before, or its places are not the image's: attention of one token to another, a grid
# that was scaled to a fixed size.
_PASSED_OVER = (nn.Identity, nn.Dropout, nn.Softmax, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)

_View = Callable[[Tensor], Tensor]
"""Turns what a layer gave for one image, or its gradient, into maps (C, h, w)."""


def grad_cam(classifier: Classifier, image: Tensor, label: int) -> Tensor | None:
    """Return where the class was seen, (h, w), negative where others were; None of a network without places.

    `image` is one preprocessed square (1, C, S, S). Selvaraju et al. 2017, section 3: the maps of a late layer,
    weighed by the mean gradient of the class's logit, before the ReLU. The layer is the last whose places the
    logit depends on: of a convolutional network its last maps; of a transformer that answers from a class
    token, the patches which that token was the last to look at.
    """
    # Requests are answered in inference mode, whose tensors no gradient passes: hence also the copy.
    with torch.inference_mode(False):
        score, outputs = _watched(classifier, image.clone().requires_grad_(), label)
        placed = _placed(outputs, width=classifier.head.in_features)
        if not placed:
            return None
        gradients = torch.autograd.grad(score, [output for output, _ in placed], allow_unused=True)
    seen = [
        (view(output.detach()), view(gradient))
        for (output, view), gradient in zip(placed, gradients, strict=True)
        if gradient is not None
    ]
    # Where nothing speaks for the class, nor against it, no layer has a gradient and any shows so.
    maps, slopes = next((one for one in reversed(seen) if one[1].any()), seen[-1])
    return torch.einsum("c,chw->hw", slopes.mean((1, 2)), maps)


def _watched(classifier: Classifier, image: Tensor, label: int) -> tuple[Tensor, list[Tensor]]:
    """Return the logit of a class, and what the layers of the body gave on the way, in their order."""
    outputs: list[Tensor] = []

    def watch(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad and not isinstance(module, _PASSED_OVER):
            outputs.append(output)

    hooks = [module.register_forward_hook(watch) for module in classifier.body.modules()]
    try:
        return classifier(image)[0, label], outputs
    finally:
        for hook in hooks:
            hook.remove()


def _placed(outputs: list[Tensor], *, width: int) -> list[tuple[Tensor, _View]]:
    """Return the outputs that have places, with how they are seen as maps. Images are squares, so maps are."""
    placed: list[tuple[Tensor, _View]] = []
    side, lengths = 1, set[int]()
    for output in (one for one in outputs if len(one) == 1):
        if output.dim() == 4:
            _, first, second, third = output.shape
            # What has as many rows and columns as there are tokens is how these look at each other.
            if second == third > 1 and third not in lengths:
                side = third
                placed.append((output, _channels_first))
            elif first == second > 1 and first not in lengths:
                side = first
                placed.append((output, _channels_last))
        elif output.dim() == 3:
            lengths.add(output.shape[1])
            if output.shape[2] == width and output.shape[1] >= side**2 > 1:
                placed.append((output, partial(_patches, side=side)))
    return placed


def _channels_first(maps: Tensor) -> Tensor:
    return maps[0]


def _channels_last(maps: Tensor) -> Tensor:
    return maps[0].permute(2, 0, 1)


def _patches(tokens: Tensor, *, side: int) -> Tensor:
    """Return the tokens (1, T, D) of patches as maps (D, h, w); class tokens and registers come before them."""
    return tokens[0, -(side**2) :].T.reshape(-1, side, side)
