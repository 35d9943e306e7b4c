"""Serving of what an optimisation made: pictures that are finished, and no network that could make others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from workers.families.answers import compare_pictures, encoded
from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.images import to_pixels

GOLDEN_REQUEST = b'{"instances": [{}]}'


class FinishedPictures(nn.Module):
    """Gives the pictures (N, 3, H, W), one tensor each, for N empty rows. Their values are whole, so that no form rounds."""

    def __init__(self, sizes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        for place, (height, width) in enumerate(sizes):
            self.register_buffer(f"picture_{place}", torch.zeros(3, height, width, dtype=torch.uint8))

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(picture.to(rows.dtype).expand(len(rows), -1, -1, -1) for picture in self.buffers())


class FinishedHandler(Handler):
    """Answers an empty instance with `{"images": [{"b64"}], "sizes": [[H, W]]}`, PNGs: the pictures of the job."""

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.sizes = [list(map(int, size)) for size in spec.constants["sizes"]]

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        return [_refusal(instance) or self._answer(network) for instance in instances]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report the largest and the mean difference of a pixel."""
        return compare_pictures(expected["images"], actual["images"])

    def _answer(self, network: Network) -> Mapping[str, Any]:
        with torch.inference_mode():
            found = network(torch.zeros(1, *self.spec.input_shape))
        pictures = [Image.fromarray(to_pixels(one[0]).astype(np.uint8)) for one in found]
        return {"images": [encoded(one) for one in pictures], "sizes": self.sizes}


def _refusal(instance: Instance) -> InstanceInvalid | None:
    if instance.body is None and not instance.fields and not instance.params:
        return None
    return InstanceInvalid(
        "this model is a finished picture, not a network: it looks at nothing and takes no parameters. Send"
        ' {"instances": [{}]} to have the picture; a model of style/fast repaints the pictures it is sent'
    )
