"""What every classifier offers, and the form in which it is served."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """A body that gives an embedding, and a linear head over it.

    `body` maps images (N, C, S, S) to embeddings (N, D). A body with `maps` gives feature maps, which
    `pool` turns into embeddings; where `pool` is a mean or a flattening, the head explains its classes by place.
    """

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K)."""
        logits: Tensor = self.head(self.body(images))
        return logits.float()


class PooledBody(nn.Module):
    """Feature maps, then their embedding: a mean over places, or all of them in a row.

    `dropout` is the chance that training leaves out a number of the embedding.
    """

    def __init__(self, maps: nn.Module, *, is_mean: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.maps = maps
        self.is_mean = is_mean
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.dropout(self.pool(self.maps(images)))
        return embedding

    def pool(self, maps: Tensor) -> Tensor:
        """Return embeddings (N, D) of feature maps (N, C, H, W)."""
        return maps.mean((2, 3)) if self.is_mean else maps.flatten(1)


class NamedMaps(nn.Sequential):
    """Modules of another network in a row; `names` are those that they had there."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__(*modules.values())
        self.names = tuple(modules)


class ServedNetwork(nn.Module):
    """Images in; logits (N, K), embeddings (N, D) and, of a `PooledBody`, class activations (N, K, H, W) out.

    The activations are Grad-CAM's (Selvaraju et al. 2017, section 3) before its ReLU: with a linear
    head over pooled maps the gradient of a class is its row of weights, so no backward pass is needed.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        body, head = self.classifier.body, self.classifier.head
        if not isinstance(body, PooledBody):
            embedding = body(images)
            return head(embedding).float(), embedding.float()
        maps = body.maps(images)
        embedding = body.pool(maps)
        weights = head.weight
        if not body.is_mean:
            # The gradient differs from place to place; Grad-CAM weighs a map by its mean.
            weights = weights.reshape(len(weights), *maps.shape[1:]).mean((2, 3))
        activations = torch.einsum("kc,nchw->nkhw", weights, maps)
        return head(embedding).float(), embedding.float(), activations.float()
