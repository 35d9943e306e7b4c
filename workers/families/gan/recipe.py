"""What the GAN recipes share: real samples, the step, evaluation, sample pictures and what serving needs."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from workers.engine import ema, rng
from workers.families.base import Golden, Picture, Placement, Recipe, ServingSpec, TrainState
from workers.families.gan import served
from workers.families.gan.config import GanConfig
from workers.families.gan.data import FAMILIES, Batch, RealImages, TrainBatches
from workers.families.gan.discriminators import Discriminator
from workers.families.gan.draw import by_class, grid
from workers.families.gan.game import Game, Generate, Judge, build_adam
from workers.families.gan.generators import Generator, build_generator
from workers.families.gan.handler import make_golden
from workers.families.gan.score import Drawn, Score, Scorer
from workers.families.latent import draw, walk
from workers.families.records import RecordSet
from workers.families.shaped import grey_notices
from workers.families.supervised import in_eval_mode

GanConfigT = TypeVar("GanConfigT", bound=GanConfig)

_EVAL_SEED = 1_000_003
_SAMPLE_SEED = 7
_WALKS, _WALK_STEPS = 4, 10
_LOSS = re.compile(r"train/loss(_\d+)?")
"""A loss that is not named after its player, of the whole or of a level of a pyramid: the discriminator's."""


class GanRecipe(Recipe[GanConfigT, Batch], Generic[GanConfigT]):
    """A GAN recipe is its networks; all else is here, unless it changes the step or adds figures."""

    metric = "eval/fid@small"
    metric_mode = "min"
    is_conditional: ClassVar[bool] = False
    """Whether generator and discriminator are told the class of a sample."""
    families: ClassVar[tuple[str, ...]] = FAMILIES
    """The families of datasets whose pictures it can learn."""

    def __init__(self, config: GanConfigT, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        self.metric = f"eval/fid@{config.eval.feature_net}"
        self._scorer: Scorer | None = None
        self.open_dataset()

    def open_dataset(self) -> None:
        """Index the dataset; reads no image."""
        data = self.config.data
        train, held_out = (RecordSet(self.dataset_dir, split, families=self.families) for split in ("train", "val"))
        self._train = RealImages(train, data=data, cache_mib=data.cache_mib)
        self._held_out = RealImages(held_out, data=data, cache_mib=data.cache_mib // 4)
        self.classes = train.meta.classes if self.is_conditional else ()
        self._labels = train.labels if self.is_conditional else None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W), or (D,) of a point."""
        return (self.config.data.channels, *self.config.data.image_size)

    @abstractmethod
    def new_discriminator(self) -> Discriminator:
        """Return a discriminator with fresh weights."""

    def new_generator(self) -> Generator:
        return build_generator(self.config, len(self.classes))

    def train_batches(self) -> TrainBatches:
        return TrainBatches(self._train, self.config, labels=self._labels)

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return batch.to(placement)

    def build(self, placement: Placement) -> TrainState:
        generator, discriminator = self.new_generator(), self.new_discriminator()
        self.place(generator, placement)
        self.place(discriminator, placement)
        loss, optim = self.config.loss, self.config.optim
        every = loss.r1_every if loss.r1_gamma else 0
        state = TrainState(
            modules={"generator": generator, "discriminator": discriminator},
            optimizers={
                "generator": self.generator_optimizer(generator),
                "discriminator": build_adam(
                    discriminator.parameters(), self.config, lr=optim.lr_discriminator, every=every
                ),
            },
            ema=self.averages(generator),
        )
        self.compile(state, placement)
        return state

    def generator_optimizer(self, generator: Generator) -> torch.optim.Optimizer:
        return build_adam(generator.parameters(), self.config, lr=self.config.optim.lr_generator)

    def place(self, network: nn.Module, placement: Placement) -> None:
        """Bring a network to where it computes."""
        network.to(device=placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]

    def compile(self, state: TrainState, placement: Placement) -> None:
        """Compile the networks, if the job wants it and nothing is differentiated twice, which graphs cannot be."""
        if placement.compile and not self.config.loss.has_second_order:
            for network in self.compiled_parts(state):
                network.compile()

    def compiled_parts(self, state: TrainState) -> list[nn.Module]:
        """Return the modules that a step calls."""
        return list(state.modules.values())

    def averages(self, generator: Generator) -> dict[str, nn.Module]:
        return {"generator": ema.average_of(generator)} if self.config.average.decay else {}

    def train_step(self, state: TrainState, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        game = Game.of(state, self.config, placement)
        game.set_rates(state.step)
        generator, discriminator = state.modules["generator"], state.modules["discriminator"]
        parts = batch.parts(self.config.optim.discriminator_steps)
        losses = [
            game.teach_discriminator(part.samples, self.drawing(generator, part), self.judging(discriminator, part))
            for part in parts
        ]
        last = parts[-1]
        scalars = game.regularise(last.samples, self.judging(discriminator, last), step=state.step)
        scalars |= self.teach_generator(game, state, last)
        self.follow(state)
        # The discriminator's: the generator's has no meaning of its own.
        return {"train/loss": torch.stack(losses).mean(), **scalars}

    def teach_generator(self, game: Game, state: TrainState, batch: Batch) -> dict[str, Tensor]:
        """Update the generator and return scalars."""
        generate = self.drawing(state.modules["generator"], batch)
        loss = game.teach_generator(generate, self.judging(state.modules["discriminator"], batch))
        return {"train/loss_generator": loss}

    def drawing(self, generator: nn.Module, batch: Batch) -> Generate:
        """Return what generates a sample for each real one, of the same class."""

        def generate() -> Tensor:
            z = torch.randn(len(batch.samples), self._latent_size(generator), device=batch.samples.device)
            drawn: Tensor = generator(z, batch.labels)
            return drawn

        return generate

    def judging(self, discriminator: nn.Module, batch: Batch) -> Judge:
        """Return what judges samples of the classes of a batch."""
        return lambda samples: discriminator(samples, batch.labels)

    def follow(self, state: TrainState) -> None:
        """Move the averaged generator, if there is one."""
        ema.follow(state, "generator", decay=self.config.average.decay)

    def served_generator(self, state: TrainState) -> Generator:
        """Return the generator that evaluation and serving use."""
        generator = state.ema.get("generator", state.modules["generator"])
        assert isinstance(generator, Generator)
        return generator

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        scorer = self.scorer(placement.device)
        with in_eval_mode(self.served_generator(state)) as generator, torch.inference_mode():
            score = scorer.score(self.drawn(generator, placement))
            return score.figures | self.more_figures(generator, scorer, score, placement)

    def more_figures(
        self, generator: Generator, scorer: Scorer, score: Score, placement: Placement
    ) -> dict[str, float]:
        """Return figures of one recipe only; none here."""
        return {}

    def judge(self) -> Mapping[str, str]:
        """Return the digest of the feature network's weights by its name, once it has scored anything."""
        return {} if self._scorer is None else {self._scorer.net.name: self._scorer.net.digest}

    def curve_label(self, scalar: str) -> str:
        return f"{scalar} (discriminator)" if _LOSS.fullmatch(scalar) else scalar

    def notices(self) -> list[str]:
        if self.config.data.source != "images":
            return []
        return grey_notices(self._train.records, self.config.data)

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        found = next((value for name, value in metrics.items() if name.startswith("eval/diversity")), 1.0)
        if found >= self.config.eval.collapse_below:
            return []
        text = (
            f"the generated samples are {100 * found:.0f} % as diverse as real ones: the generator may have collapsed"
        )
        return [f"{text}; lower optim.lr_discriminator, or try loss.r1_gamma or loss.name 'wgan_gp'"]

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        with in_eval_mode(self.served_generator(state)) as generator, torch.inference_mode():
            count = self.config.eval.num_samples
            batches = list(self.drawn(generator, placement, count=count, seed=_SAMPLE_SEED))
            images = torch.cat([batch for batch, _ in batches])
            labels = torch.cat([own for _, own in batches if own is not None]) if self.is_conditional else None
            columns = max(1, round(count**0.5))
            png = grid(images, columns=columns) if labels is None else by_class(images, labels, self.classes)
            pictures = [Picture(name="samples", png=png), self._walks(generator, placement)]
            return pictures + self.more_pictures(generator, placement)

    def _walks(self, generator: Generator, placement: Placement) -> Picture:
        """Draw the ways between some latents, each from left to right and of one class."""
        ends = draw(range(2 * _WALKS), generator.latent_size)
        z = torch.cat([walk(one, other, _WALK_STEPS) for one, other in zip(ends[::2], ends[1::2], strict=True)])
        labels = self._turns(_WALKS).repeat_interleave(_WALK_STEPS).to(placement.device) if self.classes else None
        with placement.autocast():
            images = generator(z.to(placement.device), labels)
        return Picture(name="walk", png=grid(images.float(), columns=_WALK_STEPS))

    def more_pictures(self, generator: Generator, placement: Placement) -> list[Picture]:
        """Return pictures of one recipe only; none here."""
        return []

    def serving_module(self, state: TrainState) -> nn.Module:
        return served.load_served(self.served_generator(state), self.serving_spec())

    def serving_spec(self) -> ServingSpec:
        return self._spec

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        with in_eval_mode(self.served_generator(state)):
            return make_golden(self.serving_module(state), self._spec, device=placement.device, count=count)

    @classmethod
    def load_serving_module(cls, config: GanConfigT, spec: ServingSpec) -> nn.Module:
        return served.load_served(build_generator(config, len(spec.constants["classes"])), spec)

    def scorer(self, device: torch.device) -> Scorer:
        """Return the scorer of this attempt; the first call may train its network."""
        if self._scorer is None:
            self._scorer = Scorer(self.config, self._train, self._held_out, device)
        return self._scorer

    def drawn(
        self, generator: Generator, placement: Placement, *, count: int | None = None, seed: int = _EVAL_SEED
    ) -> Drawn:
        """Yield generated samples in batches, all classes in turn; the same latents each time."""
        size, total = self.config.eval.batch_size, count or self.config.eval.num_images
        for z in torch.split(latents(generator.latent_size, total, seed=seed), size):
            labels = self._turns(len(z)) if self.is_conditional else None
            with placement.autocast():
                images = generator(z.to(placement.device), None if labels is None else labels.to(placement.device))
            yield images.float(), labels

    def _turns(self, count: int) -> Tensor:
        return torch.arange(count) % len(self.classes)

    def _latent_size(self, generator: nn.Module) -> int:
        assert isinstance(generator, Generator)
        return generator.latent_size

    @cached_property
    def _spec(self) -> ServingSpec:
        # Only its shape counts; the draws of its weights are nobody's.
        with rng.guarded(0):
            return served.serving_spec(self.new_generator(), output=self.shape, classes=self.classes)


def latents(size: int, count: int, *, seed: int) -> Tensor:
    """Return draws of N(0, 1), (count, size), the same for the same seed."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
