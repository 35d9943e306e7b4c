"""What the translation recipes share: players and their optimizers, golden answers, and how networks are called."""

from __future__ import annotations

import base64
import copy
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.base import Golden, Instance, InstanceInvalid, Placement, Recipe, TrainState
from workers.families.supervised import in_eval_mode
from workers.families.translation.config import PlayersConfig
from workers.families.translation.data import Batch, Indices
from workers.families.translation.handler import TranslationHandler

TranslationConfigT = TypeVar("TranslationConfigT", bound=PlayersConfig)

Request = tuple[bytes, Mapping[str, Any]]
"""An encoded picture, and what is asked for beside it."""

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class TranslationRecipe(Recipe[TranslationConfigT, Batch], Generic[TranslationConfigT]):
    """A translation recipe is its networks, its step and its figures.

    Modules whose names begin with `discriminator` belong to the optimizer `discriminator`, all others to `generator`.
    """

    metric_mode: ClassVar[str] = "min"
    handler: ClassVar[type[TranslationHandler]]

    @abstractmethod
    def new_networks(self) -> dict[str, nn.Module]:
        """Return all networks with fresh weights."""

    @abstractmethod
    def golden_requests(self, count: int) -> list[Request]:
        """Return `count` held-out pictures, encoded, each with what is asked for beside it."""

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return batch.to(placement)

    def build(self, placement: Placement) -> TrainState:
        networks = self.new_networks()
        for network in networks.values():
            network.to(device=placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]
            if placement.compile:
                network.compile()
        optimizers = {}
        for player in (GENERATOR, DISCRIMINATOR):
            parameters = [
                value
                for network in self.of_player(networks, player)
                for value in network.parameters()
                if value.requires_grad
            ]
            if parameters:
                optimizers[player] = self._adam(parameters, player)
        return TrainState(modules=networks, optimizers=optimizers)

    def of_player(self, networks: Mapping[str, nn.Module], player: str) -> list[nn.Module]:
        """Return the networks of one side of the game."""
        is_wanted = player == DISCRIMINATOR
        return [network for name, network in networks.items() if name.startswith(DISCRIMINATOR) == is_wanted]

    def set_rates(self, state: TrainState) -> None:
        """Give both optimizers the learning rates of the update after `state.step` finished ones."""
        left = 1 - state.step / self.config.limits.max_steps
        share = 1 - self.config.schedule.decay_from
        factor = min(1.0, left / share) if share else 1.0
        for player, optimizer in state.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = factor * self._peak(player)

    def update(self, state: TrainState, player: str, loss: Tensor) -> None:
        """Take one step of a player's optimizer down a loss."""
        optimizer = state.optimizers[player]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        # A copy laid out as servers lay it out, so that they answer the very bytes.
        module = copy.deepcopy(self.serving_module(state)).to(memory_format=torch.contiguous_format)
        handler = self.handler(self.serving_spec())
        inputs, answers = [], []
        with in_eval_mode(module):
            for data, wish in self.golden_requests(count):
                (answer,) = handler.predict([Instance(data, {}, wish)], lambda rows: module(rows.to(placement.device)))
                if not isinstance(answer, InstanceInvalid):
                    inputs.append(_request(data, wish))
                    answers.append(answer)
        return Golden(inputs=tuple(inputs), answers=tuple(answers))

    def chunks(self, count: int) -> Iterator[Indices]:
        """Yield the places of the first `count` held-out samples in batches of the evaluation."""
        size = self.config.eval.batch_size
        for start in range(0, count, size):
            yield np.arange(start, min(start + size, count))

    def _adam(self, parameters: Sequence[nn.Parameter], player: str) -> torch.optim.Optimizer:
        optim = self.config.optim
        return torch.optim.Adam(
            parameters,
            lr=self._peak(player),
            betas=(optim.beta1, optim.beta2),
            weight_decay=optim.weight_decay,
            fused=True,
        )

    def _peak(self, player: str) -> float:
        optim = self.config.optim
        return (optim.lr_discriminator or optim.lr) if player == DISCRIMINATOR else optim.lr


def called(network: nn.Module, placement: Placement, *inputs: Tensor) -> Tensor:
    """Call a network as training does, and return what it gives in fp32."""
    with placement.autocast():
        output: Tensor = network(*inputs)
    return output.float()


def placed(images: Tensor, placement: Placement) -> Tensor:
    """Bring pictures of the range of Tanh to where networks compute."""
    return images.to(placement.device, memory_format=placement.memory_format)


def _request(data: bytes, wish: Mapping[str, Any]) -> bytes:
    """Return the picture itself where nothing is asked for beside it, else an envelope."""
    if not wish:
        return data
    image = {"b64": base64.b64encode(data).decode()}
    return json.dumps({"instances": [{"image": image}], "params": dict(wish)}).encode()
