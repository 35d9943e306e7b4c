"""Fast style transfer: a network that paints in one pass (Johnson, Alahi, Fei-Fei 2016, arXiv:1603.08155).

Sections 3.1 and 3.2: the network is taught by the losses of a VGG-16, content at relu2_2 and style at four layers, the
weights those of pytorch/examples. A domain of several style pictures is painted in the mean of their statistics.
"""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from workers.families.base import Golden, Instance, InstanceInvalid, Picture, Placement, ServingSpec, TrainState
from workers.families.images import MEAN, STD, denormalise, to_pixels
from workers.families.style.config import STRIDE, FastConfig
from workers.families.style.data import Batch, Squares, TrainBatches, domains, held_out_content, require, shorter_side
from workers.families.style.draw import Case, samples_page
from workers.families.style.figures import Score
from workers.families.style.handler import StyleHandler
from workers.families.style.network import TransformNetwork
from workers.families.style.recipe import Critic, Maps, StyleRecipe
from workers.families.supervised import in_eval_mode, served_network, spread


class Fast(StyleRecipe[FastConfig, Batch]):
    """Trains and serves a transform network."""

    is_batch_divisible = True

    def __init__(self, config: FastConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        data = config.data
        content, style = domains(dataset_dir, "train")
        held_out, self._others = held_out_content(dataset_dir)
        self._style = require(style, "style")
        self._train = Squares(require(content, "content"), size=data.image_size, cache_mib=data.cache_mib)
        self._held_out = Squares(held_out, size=data.image_size, cache_mib=data.cache_mib // 4)

    def new_network(self) -> TransformNetwork:
        return TransformNetwork(self.config.model)

    def train_batches(self) -> TrainBatches:
        config = self.config
        return TrainBatches(self._train, data=config.data, augment=config.augment, seed=config.runtime.seed)

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return batch.to(placement)

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        critic = self.critic_of(network, placement)
        with placement.autocast():
            painted = network(batch.images)
        return critic.parts(painted.float(), critic.constant(batch.images), self._grams(critic))

    def notices(self) -> list[str]:
        left_out = len(self._style) - self.config.data.style_pictures
        more = [f"{left_out} style pictures are not looked at: data.style_pictures says how many are"]
        return super().notices() + (more if left_out > 0 else [])

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        critic, config = self.critic_of(state.modules["network"], placement), self.config.eval
        self.note_digest(critic)
        others = self.once(critic, "others", lambda: self.mean_grams(critic, self._pictures_of_others()))
        score = Score(critic, self._grams(critic), others or None)
        places = spread(len(self._held_out), config.num_images)
        with in_eval_mode(served_network(state)) as network:
            for start in range(0, len(places), config.batch_size):
                content = self._held_out.gather(places[start : start + config.batch_size])
                score.add(self._paint(network, content, placement), content)
        return score.figures()

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        places = spread(len(self._held_out), self.config.eval.num_samples)
        content = self._held_out.gather(places)
        with in_eval_mode(served_network(state)) as network:
            painted = torch.cat([self._paint(network, one[None], placement) for one in content])
        cases = [Case(one, other) for one, other in zip(content, painted, strict=True)]
        return [Picture(name="samples", png=samples_page(cases, self._style_pictures))]

    def serving_module(self, state: TrainState) -> nn.Module:
        return served_network(state)

    def serving_spec(self) -> ServingSpec:
        size = self.config.data.image_size
        constants = {
            "normalisation": {"mean": list(MEAN), "std": list(STD)},
            "stride": STRIDE,
            "max_side": self.config.serving.max_side,
        }
        return ServingSpec(input_shape=(3, size, size), constants=constants)

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        handler, exact = (
            StyleHandler(self.serving_spec()),
            Placement(placement.device, autocast_dtype=None, memory_format=placement.memory_format),
        )
        inputs = [_png(one) for one in self._held_out.gather(spread(len(self._held_out), count))]

        with in_eval_mode(served_network(state)) as network:

            def paint(images: Tensor) -> Tensor:
                painted: Tensor = network(images.to(exact.device, memory_format=exact.memory_format))
                return painted.cpu()

            answers = handler.predict([Instance(body=data, fields={}, params={}) for data in inputs], paint)
        good = [(data, one) for data, one in zip(inputs, answers, strict=True) if not isinstance(one, InstanceInvalid)]
        return Golden(inputs=tuple(data for data, _ in good), answers=tuple(one for _, one in good))

    @classmethod
    def load_serving_module(cls, config: FastConfig, spec: ServingSpec) -> TransformNetwork:
        del spec
        return TransformNetwork(config.model)

    def _paint(self, network: nn.Module, content: Tensor, placement: Placement) -> Tensor:
        """Return uint8 pictures (N, 3, H, W) repainted, as serving would answer them."""
        with torch.inference_mode(), placement.autocast():
            painted = network(Batch(content).to(placement).images)
        return denormalise(painted).cpu()

    def _grams(self, critic: Critic) -> Maps:
        return self.once(critic, "style", lambda: self.mean_grams(critic, self._style_pictures))

    @cached_property
    def _style_pictures(self) -> list[Tensor]:
        return self._style.first(self.config.data.style_pictures, shorter_side(self.config.data.style_size))

    def _pictures_of_others(self) -> list[Tensor]:
        """Return style pictures that nothing was learned from, if there are any."""
        return self._others.first(self.config.data.style_pictures, shorter_side(self.config.data.style_size))


def _png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(to_pixels(picture)).save(buffer, "PNG")
    return buffer.getvalue()
