"""One generator against one discriminator: the updates of a step, whatever the networks and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workers.families.adversarial import frozen
from workers.families.base import Placement, TrainState
from workers.families.gan.augment import diff_augment
from workers.families.gan.config import GanConfig
from workers.families.gan.losses import discriminator_loss, generator_loss, gradient_penalty, r1_penalty
from workers.families.schedule import learning_rate

Generate = Callable[[], Tensor]
"""Draws latents and returns as many generated samples as the batch has real ones."""
Judge = Callable[[Tensor], Tensor]
"""Samples to logits (N,); closes over whatever else the discriminator is told."""


@dataclass(frozen=True, slots=True)
class Game:
    """The rules; the players are in a `TrainState` under the names given."""

    config: GanConfig
    placement: Placement
    discriminator: nn.Module
    optimizer_g: Optimizer
    optimizer_d: Optimizer

    @classmethod
    def of(cls, state: TrainState, config: GanConfig, placement: Placement, *, suffix: str = "") -> Game:
        """Return the game of `generator` and `discriminator` with their optimizers, all with the same suffix."""
        one, other = f"generator{suffix}", f"discriminator{suffix}"
        return cls(config, placement, state.modules[other], state.optimizers[one], state.optimizers[other])

    def teach_discriminator(self, real: Tensor, generate: Generate, judge: Judge) -> Tensor:
        """Update the discriminator once and return its loss. Real and generated samples pass it apart."""
        loss_config = self.config.loss
        with torch.no_grad(), self.placement.autocast():
            fake = generate()
        fake = fake.float()
        # The penalty is on what the discriminator sees, too.
        real, fake = (diff_augment(samples, self.config.augment) for samples in (real, fake))
        loss = discriminator_loss(loss_config, self._logits(judge, real), self._logits(judge, fake))
        total = loss
        if loss_config.name == "wgan_gp":
            # In fp32, as all that is differentiated twice.
            total = total + loss_config.penalty * gradient_penalty(judge, real, fake)
        self._update(self.optimizer_d, total)
        return loss.detach()

    def regularise(self, real: Tensor, judge: Judge, *, step: int) -> dict[str, Tensor]:
        """Update the discriminator against steep gradients at real samples, where it is due (R1, lazily)."""
        loss = self.config.loss
        if loss.r1_gamma == 0 or step % loss.r1_every:
            return {}
        penalty = r1_penalty(lambda samples: judge(diff_augment(samples, self.config.augment)), real)
        self._update(self.optimizer_d, 0.5 * loss.r1_gamma * loss.r1_every * penalty)
        return {"train/r1": penalty.detach()}

    def teach_generator(self, generate: Generate, judge: Judge) -> Tensor:
        """Update the generator once against a frozen discriminator and return its loss."""
        with frozen(self.discriminator):
            with self.placement.autocast():
                fake = generate()
            seen = diff_augment(fake.float(), self.config.augment)
            loss = generator_loss(self.config.loss, self._logits(judge, seen))
            self._update(self.optimizer_g, loss)
        return loss.detach()

    def update_generator(self, loss: Tensor) -> None:
        """Update the generator once against any other loss."""
        self._update(self.optimizer_g, loss)

    def set_rates(self, step: int) -> None:
        """Give both optimizers the learning rates of the update after `step` finished ones."""
        config = self.config
        peaks = ((self.optimizer_g, config.optim.lr_generator), (self.optimizer_d, config.optim.lr_discriminator))
        for optimizer, peak in peaks:
            rate = learning_rate(step, peak=peak, schedule=config.schedule, max_steps=config.limits.max_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_factor"]

    def _logits(self, judge: Judge, samples: Tensor) -> Tensor:
        with self.placement.autocast():
            return judge(samples).float()

    def _update(self, optimizer: Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def build_adam(parameters: Iterator[nn.Parameter], config: GanConfig, *, lr: float, every: int = 0) -> Optimizer:
    """Return Adam for one player.

    A player with an update more at every `every` steps gets a rate and a memory that make up for it
    (Karras et al. 2020, appendix B).
    """
    ratio = every / (every + 1) if every else 1.0
    betas = (config.optim.beta1**ratio, config.optim.beta2**ratio)
    groups = [{"params": list(parameters), "lr_factor": ratio}]
    return torch.optim.Adam(groups, lr=lr * ratio, betas=betas, fused=True)
