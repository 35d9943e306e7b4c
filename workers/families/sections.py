"""Config sections that several families share. Torch-free: the API server validates with these."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from workers.families.config import RecipeConfig, Runtime, Section

Fraction = Annotated[float, Field(ge=0, le=1)]


class Warp(Section):
    """Random changes of training images; every draw depends on the seed and the step alone."""

    scale: tuple[float, float] = Field((0.8, 1.2), description="Range of the zoom factor.")
    aspect: float = Field(
        1.0, ge=1, le=3, description="Largest stretch of the width against the height, and its inverse."
    )
    translate: float = Field(0.2, ge=0, lt=1, description="Largest shift, as a fraction of the side.")
    flip: Fraction = Field(0.5, description="Chance of a mirror image; 0 where left and right mean something.")
    exposure: float = Field(1.5, ge=1, le=4, description="Largest factor of brightness, and its inverse.")
    saturation: float = Field(1.5, ge=1, le=4, description="Largest factor of colour saturation, and its inverse.")

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Self:
        low, high = self.scale
        if not 0.1 <= low <= high <= 10:
            raise ValueError("augment.scale must be [low, high] with 0.1 <= low <= high <= 10; [1, 1] turns zoom off")
        return self

    @property
    def moves_pixels(self) -> bool:
        """Return whether any draw changes the geometry."""
        return self.scale != (1.0, 1.0) or self.aspect > 1 or self.translate > 0 or self.flip > 0


class Optim(Section):
    """The optimizer."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum, or AdamW.")
    lr: float = Field(5e-4, gt=0, le=10, description="Peak learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; the first beta of AdamW.")
    beta2: float = Field(0.999, ge=0, lt=1, description="The second beta of AdamW; lower follows the gradient faster.")
    weight_decay: float = Field(5e-4, ge=0, le=10, description="Weight decay; biases and norms have none.")
    max_grad_norm: float | None = Field(None, gt=0, description="Longer gradients are shortened to this length.")


class Schedule(Section):
    """The learning rate as a function of the step; `limits.max_steps` is its end."""

    name: Literal["constant", "milestones", "cosine", "poly", "linear", "inverse_sqrt"] = Field(
        "milestones",
        description="Shape after the warm-up; poly is (1 - progress) to the power 0.9, inverse_sqrt the root of "
        "warm-up / step.",
    )
    warmup_steps: int = Field(
        0, ge=0, description="Steps of linear growth from zero to the peak, at most a fifth of the training."
    )
    milestones: tuple[tuple[int, float], ...] = Field(
        (), description="Pairs (step, factor): from this step on the rate is multiplied by the factor."
    )

    @model_validator(mode="after")
    def _milestones_belong_to_their_shape(self) -> Self:
        steps = [step for step, _ in self.milestones]
        if self.name == "milestones" and not steps:
            raise ValueError("schedule.milestones is empty: give pairs (step, factor) or use schedule.name 'constant'")
        if self.name != "milestones" and steps:
            raise ValueError(f"schedule.milestones has no effect with schedule.name '{self.name}': leave it out")
        if steps != sorted(set(steps)) or any(step < 0 for step in steps):
            raise ValueError("schedule.milestones must have growing steps from 0 on")
        if any(factor <= 0 for _, factor in self.milestones):
            raise ValueError("schedule.milestones must have factors above 0")
        return self


class SupervisedRuntime(Runtime):
    """How the step is computed, and what is kept of its weights."""

    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share that a moving average of the weights keeps at an update, less at the start of training. The "
        "average is then what is evaluated, chosen by and served. 0: no average.",
    )


class SupervisedConfig(RecipeConfig):
    """What recipes with one network, one loss and one optimizer share."""

    runtime: SupervisedRuntime = SupervisedRuntime()
    optim: Optim = Optim()
    schedule: Schedule = Schedule(name="constant")
