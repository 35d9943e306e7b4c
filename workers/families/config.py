"""The sections every recipe's config shares. Torch-free: the API server validates with these.

A recipe's config is one frozen model of sections `data, model, loss, optim, schedule, augment, eval,
runtime, limits`; unknown keys are errors. Presets are complete configs by name; `full` and `tiny`
exist for every recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

TORCHVISION = "torchvision"
"""Stands among recipes for the weights that torchvision publishes."""
WEIGHTS = "weights"
"""Stands among recipes for weights that were trained elsewhere and uploaded."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a job starts from, as far as it is known before its weights are read."""

    name: str
    """As the job says it: a model version, a checkpoint, a dataset of weights, or
    `torchvision:ResNet18_Weights.IMAGENET1K_V1`.
    """
    kind: Literal["model", "checkpoint", "weights", "torchvision"]
    recipe: str
    """That of the model or checkpoint; `TORCHVISION` or `WEIGHTS` for what no recipe trained."""
    config: Mapping[str, Any]
    """The complete config that the model or checkpoint was trained with; empty for what no recipe trained."""


class Section(BaseModel):
    """One group of hyper-parameters: frozen, keyword-only, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Runtime(Section):
    """How the step is computed; none of it may change what a step learns beyond rounding."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the worker's own device.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: a short probe on the job's own network picks the fastest and remembers it."
    )
    channels_last: Literal["auto", "on", "off"] = Field("auto", description="Memory format of images and convolutions.")
    compile: bool = Field(False, description="Compile the networks; pays off on long jobs.")
    deterministic: bool = Field(True, description="Only deterministic kernels, so that a resume ends in the same bits.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seeds initial weights, data order and augmentation.")
    loader_workers: int = Field(0, ge=0, le=16, description="Loader processes; 0 loads inside the trainer.")


class Limits(Section):
    """When to stop, and how often to look."""

    max_steps: int = Field(1000, ge=1, le=10_000_000, description="Optimizer updates.")
    max_seconds: float | None = Field(None, gt=0, description="Wall time of training; the last checkpoint is kept.")
    checkpoint_every_steps: int = Field(200, ge=1, description="Steps between checkpoints.")
    checkpoint_every_seconds: float | None = Field(
        None,
        gt=0,
        description="Also checkpoint after this long; leave unset for checkpoints at the same steps in every run.",
    )
    evaluate_every_steps: int = Field(
        200, ge=1, description="Steps between evaluations; the last step always evaluates."
    )
    sample_every_steps: int = Field(200, ge=1, description="Steps between sample pictures.")
    log_every_steps: int = Field(10, ge=1, description="Steps between two reads of the scalars from the device.")


class RecipeConfig(Section):
    """Base of every recipe's config; subclasses add their own sections and fill PRESETS."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}
    SOURCES: ClassVar[tuple[str, ...]] = ()
    """Recipes, or `TORCHVISION`, whose weights a job may start from; `Recipe.load_source` takes them."""
    NEEDS_SOURCE: ClassVar[bool] = False
    """Whether a job without one makes no sense."""

    runtime: Runtime = Runtime()
    limits: Limits = Limits()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if "full" in cls.PRESETS:
            raise TypeError(f"{cls.__name__}: the preset full is the defaults of the fields; it cannot be in PRESETS")

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a preset as a complete config; `full` is the field defaults.

        Raises:
            KeyError: no preset of this name.
        """
        return cls.model_validate({} if name == "full" else cls.PRESETS[name])

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Self:
        """Return the config a model was trained with, written perhaps by another version of its recipe.

        Keys this version does not know are left out and new ones take their defaults, so that an
        upgrade keeps old models alive. Whoever calls this compares the model's answers with its golden ones.
        """
        return cls.model_validate(_known(cls, stored))

    def adopt(self, origin: Origin) -> Self:
        """Return this config completed by what a job starts from, such as the layers of its network.

        Called once, when the job is created: from then on the config alone says how to build the networks.

        Raises:
            ValueError: the two do not go together; the text says what to change.
        """
        del origin
        return self

    def max_processes(self) -> int:
        """Return how many processes may share each batch: its size where the step keeps to the rule of
        `Recipe.train_step`, else 1.
        """
        return 1

    @classmethod
    def preset_names(cls) -> tuple[str, ...]:
        return ("full", *(name for name in cls.PRESETS if name != "full"))


def _known(section: type[BaseModel], stored: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if name in stored:
            value, kind = stored[name], field.annotation
            is_section = isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, Mapping)
            kept[name] = _known(kind, value) if is_section and isinstance(kind, type) else value
    return kept


def preset_limits(steps: int, *, evaluations: int = 3) -> dict[str, int]:
    """Return the limits of a preset that is evaluated so many times."""
    names = ("checkpoint_every_steps", "evaluate_every_steps", "sample_every_steps")
    return {"max_steps": steps, **dict.fromkeys(names, max(1, steps // evaluations))}
