"""Networks whose features generated samples are compared in; each has a name, and the figures say which it was.

The small one is trained on the dataset itself, by its labels, attributes or, without any, by telling how far an image
was turned. Its seed is its own, so that jobs on equal data are measured with the same network.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model

from services.core.errors import RequestInvalid, Violation
from workers.engine import rng
from workers.engine.data import ShuffledBatches
from workers.families.gan.config import Eval
from workers.families.gan.data import RealImages
from workers.families.images import MEAN, STD, to_tanh
from workers.families.shaped import Indices

WIDTH = 64
"""Features of the small network."""
_MAX_SIDE = 64
_SEED = 0
_BATCH = 64
_RATE = 3e-3
_TURNS = 4


@dataclass(frozen=True, slots=True)
class FeatureNet:
    """A frozen network from images (N, C, H, W) of the range of Tanh to features (N, D), fp32."""

    name: str
    body: nn.Module
    head: nn.Linear | None
    """Of the small network trained on classes: features to logits."""
    digest: str
    """Tells networks of one name apart, since only figures of the same network can be compared."""

    def features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.body(images.float().contiguous())
        return found.float()

    def classes(self, features: Tensor) -> Tensor:
        """Return the class (N,) the network sees in features."""
        assert self.head is not None
        with torch.no_grad():
            found: Tensor = self.head(features)
        return found.argmax(1)


def load_feature_net(config: Eval, images: RealImages, device: torch.device) -> FeatureNet:
    """Return the network a job names; trains the small one.

    Raises:
        RequestInvalid: torchvision's weights cannot be had here.
    """
    if config.feature_net == "small":
        with rng.guarded(_SEED):
            return _trained(config, images, device)
    return _library(config.feature_net, device)


def _trained(config: Eval, images: RealImages, device: torch.device) -> FeatureNet:
    lesson = _lesson(images)
    channels, *size = images.gather(np.arange(1)).shape[1:]
    body = _SmallBody(channels, _side(*size)).to(device)
    head = nn.Linear(WIDTH, lesson.outputs).to(device)
    count = min(len(images), config.feature_images)
    order = ShuffledBatches(seed=_SEED, count=count, batch_size=min(_BATCH, count))
    steps = config.feature_epochs * order.steps_per_epoch
    optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=_RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        indices = np.asarray(order.indices(step))
        batch, truth = lesson.examples(to_tanh(images.gather(indices)).to(device), indices)
        loss = lesson.loss(head(body(batch)), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    body.eval().requires_grad_(False)
    head.requires_grad_(False)
    return FeatureNet("small", body, head if lesson.has_classes else None, _digest(body))


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What the small network learns: classes (N,), attributes (N, A), or without targets quarter turns."""

    targets: Tensor | None
    outputs: int

    @property
    def has_classes(self) -> bool:
        return self.targets is not None and self.targets.ndim == 1

    def examples(self, batch: Tensor, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return images and their truth for a batch of images."""
        if self.targets is not None:
            return batch, self.targets[torch.from_numpy(indices)].to(batch.device)
        square = _to_square(batch)
        turned = torch.cat([square.rot90(turn, (2, 3)) for turn in range(_TURNS)])
        return turned, torch.arange(_TURNS, device=batch.device).repeat_interleave(len(batch))

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        if truth.ndim == 1:
            return functional.cross_entropy(logits, truth)
        return functional.binary_cross_entropy_with_logits(logits, truth.float())


def _lesson(images: RealImages) -> _Lesson:
    records = images.records
    if records.meta.classes and records.has_labels:
        return _Lesson(records.labels, len(records.meta.classes))
    if records.meta.attributes:
        return _Lesson(records.attributes, len(records.meta.attributes))
    return _Lesson(None, _TURNS)


class _SmallBody(nn.Module):
    """Two convolutions of stride 2 and a linear layer, whose outputs are the features.

    No batch norm and no mean over places: features tell classes and shapes apart rather than textures, and stay of
    one scale for images unlike any real one.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        small = -(-side // 4)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * small**2, WIDTH),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(_to_square(images))
        return features


class _LibraryBody(nn.Module):
    """A network of torchvision, as far as its embedding, with its own preprocessing."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        size = (self.side, self.side)
        scaled = functional.interpolate(images, size, mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
        out: Tensor = self.network(((scaled + 1) / 2 - self.get_buffer("mean")) / self.get_buffer("std"))
        return out


def _library(name: str, device: torch.device) -> FeatureNet:
    try:
        network: nn.Module = get_model(name, weights="DEFAULT")
    except OSError as err:
        text = f"the weights of {name} cannot be had here ({err}); use small, which is trained on the dataset"
        raise RequestInvalid(violations=[Violation("config.eval.feature_net", text)]) from err
    network.fc = nn.Identity()
    body = _LibraryBody(network, side=299 if name == "inception_v3" else 224).to(device).eval().requires_grad_(False)
    return FeatureNet(name, body, None, _digest(body))


def _side(height: int, width: int) -> int:
    return min(_MAX_SIDE, max(height, width))


def _to_square(images: Tensor) -> Tensor:
    side = _side(*images.shape[2:])
    if images.shape[2:] == (side, side):
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def _digest(body: nn.Module) -> str:
    digest = hashlib.sha256()
    for value in body.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
