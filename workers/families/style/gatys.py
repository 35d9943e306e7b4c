"""Style transfer as an optimisation, in which the picture is the parameter (Gatys, Ecker, Bethge 2016, CVPR).

Sections 2 and 3, with Adam in place of L-BFGS and a total variation term, as "Dive into Deep Learning", section 14.12,
has it. From coarse to fine as crowsonkb/style-transfer-pytorch: there each size goes on with the picture and the
moments of the one before, scaled up; here the parameter has its full size from the start, and coarse losses look at it
scaled down, so that a checkpoint of any step fits and nothing needs scaling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from workers.families.base import Golden, Instance, InstanceInvalid, Picture, Placement, ServingSpec, TrainState
from workers.families.images import MEAN, STD, denormalise, normalise, to_pixels
from workers.families.pictures import png
from workers.families.style.config import GatysConfig
from workers.families.style.data import domains, held_out_domains, longer_side, require, scaled
from workers.families.style.draw import Case, samples_page
from workers.families.style.figures import Score, similarity
from workers.families.style.finished import GOLDEN_REQUEST, FinishedHandler, FinishedPictures
from workers.families.style.recipe import Critic, Maps, StyleRecipe
from workers.families.supervised import served_network


class Canvas(nn.Module):
    """The pictures that are redrawn, as networks see them: their pixels are the parameters."""

    def __init__(self, pictures: list[Tensor]) -> None:
        super().__init__()
        self.pictures = nn.ParameterList(nn.Parameter(picture) for picture in pictures)

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """Cut the pixels to what a picture can show."""
        for picture in self.pictures:
            low, high = (
                picture.new_tensor([(end - mean) / std for mean, std in zip(MEAN, STD, strict=True)])[:, None, None]
                for end in (0, 1)
            )
            picture.copy_(picture.maximum(low).minimum(high))

    def pixels(self) -> list[Tensor]:
        """Return the pictures as people see them, uint8 (3, H, W) on the host."""
        return [denormalise(picture.detach())[0].cpu() for picture in self.pictures]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a step works on: pictures, uint8 (3, H, W), and which of the sizes it is at, 0 the coarsest."""

    contents: list[Tensor]
    styles: list[Tensor]
    stage: int


class Subjects:
    """The same pictures at every step, at the size whose turn it is."""

    steps_per_epoch = 1
    batch_size = 1

    def __init__(self, recipe: Gatys) -> None:
        self._recipe = recipe

    def batch(self, step: int) -> Subject:
        stages, total = self._recipe.config.image.scales, self._recipe.config.limits.max_steps
        return Subject(self._recipe.contents, self._recipe.styles, min(stages - 1, step * stages // total))


@dataclass(frozen=True, slots=True)
class _Stage:
    """What pictures should be like at one size: features of each content, Gram matrices, and how to scale to it."""

    contents: Sequence[Maps]
    grams: Maps
    shrinks: list[tuple[Tensor, Tensor] | None]


class Gatys(StyleRecipe[GatysConfig, Subject]):
    """Redraws pictures; what it trains is the pictures themselves."""

    def __init__(self, config: GatysConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        content, style = domains(dataset_dir, "train")
        self._content, self._style = require(content, "content"), require(style, "style")
        self._held_out = held_out_domains(dataset_dir)

    @cached_property
    def contents(self) -> list[Tensor]:
        return self._content.first(self.config.data.batch_size, longer_side(self.config.data.image_size))

    @cached_property
    def styles(self) -> list[Tensor]:
        return self._style.first(self.config.data.style_pictures, longer_side(self.config.data.image_size))

    def train_batches(self) -> Subjects:
        return Subjects(self)

    def to_device(self, batch: Subject, placement: Placement) -> Subject:
        # What a step needs of it is computed once, and stays on the device.
        del placement
        return batch

    def new_network(self) -> Canvas:
        noise = self.config.image.noise
        pictures = [normalise(content[None]) for content in self.contents]
        return Canvas([torch.lerp(picture, torch.randn_like(picture), noise) for picture in pictures])

    def losses(self, network: nn.Module, batch: Subject, placement: Placement) -> dict[str, Tensor]:
        assert isinstance(network, Canvas)
        critic = self.critic_of(network, placement)
        stage = self.once(critic, ("stage", batch.stage), lambda: self._stage(critic, batch))
        rows = [
            critic.parts(_shrunk(picture, shrink), content, stage.grams)
            for picture, shrink, content in zip(network.pictures, stage.shrinks, stage.contents, strict=True)
        ]
        return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}

    def train_step(self, state: TrainState, batch: Subject, placement: Placement) -> dict[str, Tensor]:
        scalars = super().train_step(state, batch, placement)
        canvas = state.modules["network"]
        assert isinstance(canvas, Canvas)
        canvas.keep_in_range()
        return scalars

    def notices(self) -> list[str]:
        data = self.config.data
        counts = (
            ("content", len(self._content) - data.batch_size, "data.batch_size says how many are redrawn"),
            ("style", len(self._style) - data.style_pictures, "data.style_pictures says how many are looked at"),
        )
        left_out = [f"{count} {what} pictures are left out: {remedy}" for what, count, remedy in counts if count > 0]
        return super().notices() + left_out

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        critic = self.critic_of(state.modules["network"], placement)
        self.note_digest(critic)
        grams = self.once(critic, "style", lambda: self.mean_grams(critic, self.styles))
        others = self.once(critic, "others", lambda: self.mean_grams(critic, self._others(1)))
        score = Score(critic, grams, others or None)
        pictures = _served_canvas(state).pixels()
        for painted, content in zip(pictures, self.contents, strict=True):
            score.add(painted[None], content[None])
        return score.figures() | self._beside_style(pictures) | self._beside_others(critic, pictures)

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        pictures = _served_canvas(state).pixels()
        cases = [Case(content, painted) for content, painted in zip(self.contents, pictures, strict=True)]
        alone = [_alone(picture) for picture in pictures]
        names = ["result"] if len(alone) == 1 else [f"result-{number}" for number in range(1, len(alone) + 1)]
        results = [Picture(name, body) for name, body in zip(names, alone, strict=True)]
        return [Picture("samples", samples_page(cases, self.styles)), *results]

    def serving_module(self, state: TrainState) -> nn.Module:
        pictures = _served_canvas(state).pixels()
        finished = FinishedPictures([picture.shape[-2:] for picture in pictures])
        finished.load_state_dict({f"picture_{place}": picture for place, picture in enumerate(pictures)})
        return finished.eval()

    def serving_spec(self) -> ServingSpec:
        return ServingSpec(input_shape=(1,), constants={"sizes": [list(one.shape[-2:]) for one in self.contents]})

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        # The one request that there is.
        del placement, count
        handler = FinishedHandler(self.serving_spec())
        answers = handler.predict([Instance(body=None, fields={}, params={})], self.serving_module(state))
        return Golden((GOLDEN_REQUEST,), tuple(one for one in answers if not isinstance(one, InstanceInvalid)))

    @classmethod
    def load_serving_module(cls, config: GatysConfig, spec: ServingSpec) -> FinishedPictures:
        del config
        return FinishedPictures(spec.constants["sizes"])

    def _stage(self, critic: Critic, subject: Subject) -> _Stage:
        factor = 2 ** ((subject.stage + 1 - self.config.image.scales) / 2)
        fitted = longer_side(round(self.config.data.image_size * factor))
        sizes = [fitted(*content.shape[-2:]) for content in subject.contents]
        shrinks = [
            _shrinking(content.shape[-2:], size, critic.placement.device)
            for content, size in zip(subject.contents, sizes, strict=True)
        ]
        contents = [
            critic.constant(_shrunk(critic.seen(content[None]), shrink))
            for content, shrink in zip(subject.contents, shrinks, strict=True)
        ]
        styles = [scaled(style, fitted(*style.shape[-2:])) for style in subject.styles]
        return _Stage(contents, self.mean_grams(critic, styles), shrinks)

    def _beside_style(self, pictures: list[Tensor]) -> dict[str, float]:
        """Return the structural similarity to the first style picture, which no repainting should copy."""
        found = [
            similarity(painted[None], scaled(self.styles[0], (painted.shape[-2], painted.shape[-1]))[None])
            for painted in pictures
        ]
        return {"eval/ssim_style": float(torch.stack(found).mean())}

    def _beside_others(self, critic: Critic, pictures: list[Tensor]) -> dict[str, float]:
        """Return how far the pictures are from their content, as a share of the distance to the nearest of others."""
        if not self._others(0):
            return {}
        shares = [
            self._contrast(critic, painted, content) for painted, content in zip(pictures, self.contents, strict=True)
        ]
        return {"eval/content_contrast": sum(shares) / len(shares)}

    def _contrast(self, critic: Critic, painted: Tensor, content: Tensor) -> float:
        size = (painted.shape[-2], painted.shape[-1])
        ours = critic.constant(critic.seen(painted[None]))
        own, *others = (
            float(critic.content(ours, critic.constant(critic.seen(scaled(one, size)[None]))))
            for one in (content, *self._others(0))
        )
        return own / max(min(others), 1e-12)

    def _others(self, domain: int) -> list[Tensor]:
        """Return held-out pictures of a domain, if there are any."""
        return self._others_by_domain[domain]

    @cached_property
    def _others_by_domain(self) -> Mapping[int, list[Tensor]]:
        size = longer_side(self.config.data.image_size)
        held_out = self._held_out or ()
        found = {n: domain.first(self.config.eval.num_images, size) for n, domain in enumerate(held_out)}
        return {0: [], 1: []} | found


def _served_canvas(state: TrainState) -> Canvas:
    canvas = served_network(state)
    assert isinstance(canvas, Canvas)
    return canvas


def _alone(picture: Tensor) -> bytes:
    return png(Image.fromarray(to_pixels(picture)))


def _shrinking(size: tuple[int, ...], wanted: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return the matrices that scale columns and rows of a picture; None where its size is the wanted one.

    Matrices, because torch has no deterministic gradient of its own scaling on a GPU.
    """
    if tuple(size) == wanted:
        return None
    tall, wide = (_resampling(old, new).to(device) for old, new in zip(size, wanted, strict=True))
    return tall, wide


def _resampling(old: int, new: int) -> Tensor:
    """Return the matrix (new, old) of a linear resampling without aliases."""
    return functional.interpolate(torch.eye(old)[None, None], (new, old), mode="bilinear", antialias=True)[0, 0]


def _shrunk(picture: Tensor, shrink: tuple[Tensor, Tensor] | None) -> Tensor:
    if shrink is None:
        return picture
    tall, wide = shrink
    return tall @ picture @ wide.T
