"""What every detection network offers, and the form in which it is served."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn


class DetectionNetwork(nn.Module):
    """Images in, a recipe's raw outputs out; `decode` turns those into boxes and scores."""

    @abstractmethod
    def decode(self, raw: Any) -> tuple[Tensor, Tensor]:
        """Return boxes (N, A, 4), xyxy in pixels of the square, and class scores (N, A, K) from 0 to 1.

        Pure tensor operations in fp32: part of the exported network.
        """


class ServedNetwork(nn.Module):
    """Normalised squares (N, 3, S, S) in, boxes and scores before any threshold out."""

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.decode(self.network(images))
