"""What the style recipes share: the frozen network in the state, its weights, and what its features should be."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from workers.families.base import Placement, Source, TrainState
from workers.families.images import normalise
from workers.families.style.config import PUBLISHED, StyleConfig
from workers.families.style.losses import content_distance, gram, mean_grams, style_distance, total_variation
from workers.families.style.vgg import FeatureNetwork
from workers.families.supervised import BatchT, SupervisedRecipe

StyleConfigT = TypeVar("StyleConfigT", bound=StyleConfig)
ValueT = TypeVar("ValueT")
Maps = Mapping[str, Tensor]
"""Features, or Gram matrices, by the layer they are of."""


@dataclass(frozen=True, slots=True)
class Critic:
    """Compares pictures by their features: the losses of one state."""

    network: FeatureNetwork
    config: StyleConfig
    placement: Placement

    @property
    def content_layers(self) -> tuple[str, ...]:
        return self.config.features.content

    @property
    def style_layers(self) -> tuple[str, ...]:
        return self.config.features.style

    def seen(self, pixels: Tensor) -> Tensor:
        """Return uint8 pictures (N, 3, H, W) as networks see them."""
        return normalise(pixels.to(self.placement.device)).to(memory_format=self.placement.memory_format)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features of normalised images (N, 3, H, W), in fp32."""
        with self.placement.autocast():
            found: dict[str, Tensor] = self.network(images)
        return found

    def constant(self, images: Tensor) -> dict[str, Tensor]:
        """Return features that nothing is learned through."""
        with torch.no_grad():
            return self.features(images)

    def content(self, ours: Maps, theirs: Maps) -> Tensor:
        return content_distance(ours, theirs, self.content_layers)

    def style(self, ours: Maps, grams: Maps) -> Tensor:
        return style_distance(ours, grams, self.style_layers)

    def parts(self, images: Tensor, content: Maps, grams: Maps) -> dict[str, Tensor]:
        """Return the weighted terms of the loss of normalised images."""
        return self.weighted(images, self.features(images), content, grams)

    def weighted(self, images: Tensor, features: Maps, content: Maps, grams: Maps) -> dict[str, Tensor]:
        """Return the terms that have any weight."""
        loss = self.config.loss
        terms: tuple[tuple[str, float, Callable[[], Tensor]], ...] = (
            ("content", loss.content, lambda: self.content(features, content)),
            ("style", loss.style, lambda: self.style(features, grams)),
            ("tv", loss.tv, lambda: total_variation(images)),
        )
        return {name: weight * term() for name, weight, term in terms if weight}


class StyleRecipe(SupervisedRecipe[StyleConfigT, BatchT], Generic[StyleConfigT, BatchT]):
    """State of what is trained, called `network`, and of the frozen VGG that judges it, `features`.

    The VGG is a module of the state, once and never averaged: a checkpoint holds the very weights that a job began
    with, wherever they came from. What is served has no part of it.
    """

    metric = "eval/loss"
    metric_mode: ClassVar[str] = "min"

    def __init__(self, config: StyleConfigT, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self._critics: WeakKeyDictionary[nn.Module, FeatureNetwork] = WeakKeyDictionary()
        self._digest: str | None = None
        self._constants: WeakKeyDictionary[FeatureNetwork, dict[Hashable, Any]] = WeakKeyDictionary()

    def build(self, placement: Placement) -> TrainState:
        state = super().build(placement)
        features = FeatureNetwork(self.config.features)
        features.to(device=placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]
        if placement.compile:
            features.compile()
        state.modules["features"] = features
        self._critics[state.modules["network"]] = features
        return state

    def load_source(self, state: TrainState, source: Source) -> None:
        features = state.modules["features"]
        assert isinstance(features, FeatureNetwork)
        features.load(source.tensors, name=source.origin.name)
        self._constants.pop(features, None)

    def notices(self) -> list[str]:
        features = self.config.features
        if features.weights == "given":
            return []
        text = f"the {features.network} that judges pictures has random weights, which give no looks to speak of"
        return [f"{text}: start the job from torchvision:{PUBLISHED[features.network]}.DEFAULT (init_from)"]

    def critic_of(self, network: nn.Module, placement: Placement) -> Critic:
        """Return what judges the pictures of a trained network: the VGG that was built with it."""
        return Critic(self._critics[network], self.config, placement)

    def once(self, critic: Critic, key: Hashable, find: Callable[[], ValueT]) -> ValueT:
        """Return what depends on the frozen weights and the data alone, found when it is first asked for."""
        found = self._constants.setdefault(critic.network, {})
        if key not in found:
            found[key] = find()
        value: ValueT = found[key]
        return value

    def mean_grams(self, critic: Critic, pictures: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the mean Gram matrices of uint8 pictures (3, H, W), one at a time, since their sizes differ."""
        found = (critic.constant(critic.seen(picture[None])) for picture in pictures)
        return mean_grams([{name: gram(maps[name]) for name in critic.style_layers} for maps in found])

    def judge(self) -> Mapping[str, str]:
        """Return the digest of the frozen weights by the network's name, once they have judged anything."""
        return {} if self._digest is None else {self.config.features.network: self._digest}

    def note_digest(self, critic: Critic) -> None:
        """Remember which weights the figures of an evaluation are of."""
        self._digest = self.once(critic, "digest", critic.network.digest)
