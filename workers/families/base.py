"""The contract between the engine, a recipe and a handler.

The engine owns the loop; the recipe owns the whole step: every forward, loss, backward and optimizer
update. A step returns detached scalars on the device, so only logging synchronises. The handler owns
what serving does around the network, and knows only the bundle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from services.core.errors import Code, PlatformError
from services.core.states import FailureReason
from workers.families.config import Origin, RecipeConfig

ConfigT = TypeVar("ConfigT", bound=RecipeConfig)
BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a job computes, decided once by the engine before `build`."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    """None computes in fp32; otherwise the recipe's forwards run under autocast to this type."""
    memory_format: torch.memory_format
    compile: bool = False
    mean_count: Callable[[Tensor], Tensor] = field(default=lambda count: count, compare=False, repr=False)
    """Turns what a step counted in its batch into this process's even part of what all processes counted in theirs."""

    def autocast(self) -> torch.autocast:
        """Return the context for forwards; losses that need fp32 leave it."""
        return torch.autocast(
            self.device.type, dtype=self.autocast_dtype or torch.bfloat16, enabled=self.autocast_dtype is not None
        )


@dataclass(slots=True)
class TrainState:
    """Everything a resume needs beside RNG: the engine saves and restores all of it.

    `modules` hold parameters and buffers; `ema` holds averaged copies by the same names; `tensors`
    is for what a recipe keeps besides (image pools, path-length means). `step` counts updates done.
    An optimizer's state may change only in its `step`: checkpoints copy it until then.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    schedulers: dict[str, LRScheduler] = field(default_factory=dict)
    ema: dict[str, nn.Module] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Weights that a job starts from, on the host."""

    origin: Origin
    tensors: Mapping[str, Tensor]
    """Of a model: the served network's, by its own names. Of a checkpoint: `<module>.<name>`, averaged ones where the
    training kept an average. Of torchvision: by its names."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Of a model: `ServingSpec.constants`."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with `prefix` and a dot, named without them."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}


class SourceUnfit(PlatformError):
    """The weights that the job starts from do not fit its networks; the message names tensors and shapes."""

    code = Code.FAILED_PRECONDITION
    reason = FailureReason.SPEC_INVALID.value


class BatchSource(Protocol[BatchT_co]):
    """Batches as a pure function of the step, so that a resume needs no loader state.

    `batch(step)` depends only on (data, config, seed, step): the permutation is f(seed, epoch) and
    every random draw of augmentation comes from a generator seeded by f(seed, step).
    """

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    def batch(self, step: int) -> BatchT_co: ...


@dataclass(frozen=True, slots=True)
class Picture:
    """An image for people: PNG bytes under a name such as `samples`."""

    name: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text and numbers for people and their tools, under a name such as `units`."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs of the evaluation set, encoded or as an envelope of one instance, and the answers of `evaluate`'s own path.

    `answers` are what the handler returns for an instance, as JSON-ready values; the parity gate
    compares a served answer with these.
    """

    inputs: tuple[bytes, ...]
    answers: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """What a handler needs besides weights: constants, class names, thresholds and input shape."""

    input_shape: tuple[int, ...]
    """Shape of one preprocessed instance without the batch dimension, such as (3, 128, 128)."""
    constants: Mapping[str, Any]
    """JSON-ready: normalisation, letterbox colour, class names, default thresholds."""


class Recipe(ABC, Generic[ConfigT, BatchT]):
    """One trainable thing: networks, the step, evaluation and what serving needs.

    Constructed with its config and the directory of a materialised dataset version (canonical form).
    Construction may index the dataset but reads no image.
    """

    metric: str
    """The evaluation figure that picks the best checkpoint, such as `eval/ap50`."""
    metric_mode: ClassVar[str] = "max"
    is_batch_divisible: bool = False
    """Whether a batch may be trained in parts where memory is short: the loss is a mean over samples, every optimizer
    steps after the last backward, and the batch is made of tensors and lists with one row a sample."""

    def __init__(self, config: ConfigT, dataset_dir: Path) -> None:
        self.config = config
        self.dataset_dir = dataset_dir

    @abstractmethod
    def train_batches(self) -> BatchSource[BatchT]:
        """Return the training data; may decode and cache images in memory."""

    @abstractmethod
    def to_device(self, batch: BatchT, placement: Placement) -> BatchT:
        """Move a batch to the device and memory format."""

    @abstractmethod
    def build(self, placement: Placement) -> TrainState:
        """Build freshly initialised networks and optimizers; seeded by the engine just before."""

    def load_source(self, state: TrainState, source: Source) -> None:
        """Put weights that the job starts from into networks fresh from `build`.

        Called once in the life of a job, before its first step and never by a resume; the config was completed by
        `RecipeConfig.adopt` before. A recipe that takes sources lists them in its config's `SOURCES`.

        Raises:
            SourceUnfit: names or shapes differ where they must not.
        """
        raise SourceUnfit(f"this recipe starts from no other weights: leave out {source.origin.name}")

    @abstractmethod
    def train_step(self, state: TrainState, batch: BatchT, placement: Placement) -> dict[str, Tensor]:
        """Do one whole update and return detached scalars on the device, keys such as `train/loss`.

        Scalars are finite as long as training is sound: one that is not ends the job as NON_FINITE_LOSS.

        Where the config's `max_processes` is more than 1, several processes may share each batch, and a step sees its
        rows only. The engine then averages gradients, scalars and batch norms over the whole batch; for the update
        to be that of one process, losses and scalars are means over samples, one divided by a count of anything else
        divides by `placement.mean_count(count)`, every process trains the same parameters in the same order, and
        `TrainState.tensors` hold nothing that depends on the rows. Only draws of dropout and the like differ.
        """

    @abstractmethod
    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        """Return figures such as `eval/ap50` on the held-out split, from the weights serving will use."""

    def notices(self) -> list[str]:
        """Return what people should hear before the first step, a sentence each with its remedy; mostly nothing."""
        return []

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Return what people should hear of an evaluation's figures, a sentence each with its remedy; mostly nothing."""
        return []

    def curve_label(self, scalar: str) -> str:
        """Return what a scalar's curve is called in a picture, where its own name does not say what it is."""
        return scalar

    def judge(self) -> Mapping[str, str]:
        """Return what, beside config and data, the last evaluation's figures depend on, JSON-ready; mostly nothing.

        Figures that were judged by another thing cannot be compared. The event stream, checkpoints and the bundle say it.
        """
        return {}

    @abstractmethod
    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        """Draw what the model does now, on fixed held-out inputs."""

    def tables(self, state: TrainState, placement: Placement) -> list[Table]:
        """Return what a picture cannot hold, when samples are drawn; nothing for most recipes."""
        del state, placement
        return []

    @abstractmethod
    def serving_module(self, state: TrainState) -> nn.Module:
        """Return the network to serve: preprocessed batch in, raw tensors out, exportable."""

    @abstractmethod
    def serving_spec(self) -> ServingSpec:
        """Return what the handler needs besides the weights."""

    @abstractmethod
    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        """Return `count` held-out inputs with the answers of the evaluation path in fp32."""

    @classmethod
    @abstractmethod
    def load_serving_module(cls, config: ConfigT, spec: ServingSpec) -> nn.Module:
        """Build the serving network without data, ready for `load_state_dict`."""


Network = Callable[[Tensor], Tensor | tuple[Tensor, ...]]
"""The served network in any form: eager, exported or compiled ahead of time. Input N x input_shape."""


class InstanceInvalid(ValueError):
    """One instance of a request cannot be answered; the message says why and what to send."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One thing to predict on: encoded bytes or JSON fields, and the parameters of the request."""

    body: bytes | None
    fields: Mapping[str, Any]
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Largest differences between two answers, by quantity, and whether they pass the gate."""

    differences: Mapping[str, float]
    passed: bool


class Handler(ABC):
    """Pre- and post-processing of a family, free of any server.

    The same code computes `Recipe.golden`, so serving cannot drift from training.
    """

    is_any_size: ClassVar[bool] = False
    """Whether it asks the network about inputs of any size, where stored forms know that of `input_shape` alone."""

    def __init__(self, spec: ServingSpec) -> None:
        self.spec = spec
        self.load_eager: Callable[[], nn.Module] | None = None
        """Gives the served network as modules, for what a stored form cannot tell, such as gradients. Set by who opens
        a bundle to serve it; beside a stored form the first call loads the weights, and they stay."""

    @abstractmethod
    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        """Answer every instance in one batch; a bad one yields its error and spoils no other."""

    def weigh(self, instance: Instance) -> int:
        """Return the pixels that an answer will draw where a request may ask for any number of them, else 0.

        What writes text says as how many pixels that counts, by the time both take.
        """
        del instance
        return 0

    @abstractmethod
    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Compare two answers to the same input."""
