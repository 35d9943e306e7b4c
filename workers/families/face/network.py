"""The networks: bodies of torchvision and a small one, each ending in embeddings of length 1."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model

from workers.families.face.config import Model


class Embedder(nn.Module):
    """Normalised images (N, 3, S, S) in, embeddings of length 1 out, (N, D)."""

    def __init__(self, model: Model, image_size: int) -> None:
        super().__init__()
        self.net = _small(model, image_size) if model.name == "small" else _library(model)

    def forward(self, images: Tensor) -> Tensor:
        # In bf16 the length of a vector would be off by up to half a percent.
        embeddings: Tensor = functional.normalize(self.net(images).float())
        return embeddings


class FaceNetwork(nn.Module):
    """An embedder, and what only the loss needs beside it."""

    def __init__(self, embedder: Embedder, head: nn.Module | None = None) -> None:
        super().__init__()
        self.embedder = embedder
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.embedder(images)
        return embeddings


class ServedNetwork(nn.Module):
    """Images in; embeddings (N, D) and, the same for all, the similarity from which two are one person, (N, 1), out.

    The threshold belongs to these weights, so it travels with them: in millionths, since a float would lose
    places when the network is turned to bf16.
    """

    threshold_millionths: Tensor

    def __init__(self, embedder: Embedder, threshold: float = 0.0) -> None:
        super().__init__()
        self.embedder = embedder
        self.register_buffer("threshold_millionths", torch.tensor(round(threshold * MILLION)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.embedder(images), self.threshold_millionths.expand(len(images), 1)


MILLION = 1_000_000


def _small(model: Model, image_size: int) -> nn.Module:
    blocks = [_block(*channels) for channels in pairwise((3, *model.widths))]
    side = image_size >> len(blocks)
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(model.widths[-1] * side**2, model.dim))


def _block(channels: int, out_channels: int) -> nn.Module:
    conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True), nn.MaxPool2d(2))


def _library(model: Model) -> nn.Module:
    """Return a classifier of torchvision whose last layer gives embeddings instead."""
    net: nn.Module = get_model(model.name, weights=None)
    if model.name.startswith("resnet"):
        last = net.get_submodule("fc")
        assert isinstance(last, nn.Linear)
        net.fc = nn.Linear(last.in_features, model.dim)
        return net
    classifier = net.get_submodule("classifier")
    assert isinstance(classifier, nn.Sequential)
    last = classifier[-1]
    assert isinstance(last, nn.Linear)
    classifier[-1] = nn.Linear(last.in_features, model.dim)
    return net
