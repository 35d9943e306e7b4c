"""Config of the job that explains a trained generator. Torch-free: the API server validates with it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from workers.families.config import Limits, Origin, RecipeConfig, Section
from workers.families.gan.config import (
    CelebaConvConfig,
    CelebaFcConfig,
    CganConfig,
    DcganConfig,
    GanConfig,
    LapganConfig,
    StyleganConfig,
    VanillaConfig,
)
from workers.families.sections import Fraction, Schedule

GENERATORS: dict[str, type[GanConfig]] = {
    "gan/vanilla": VanillaConfig,
    "gan/cgan": CganConfig,
    "gan/dcgan": DcganConfig,
    "gan/lapgan": LapganConfig,
    "gan/stylegan2": StyleganConfig,
    "gan/celeba_fc": CelebaFcConfig,
    "gan/celeba_conv": CelebaConvConfig,
}

Name = Annotated[str, Field(min_length=1, max_length=100)]
Box = tuple[Fraction, Fraction, Fraction, Fraction]


class TrainedGenerator(Section):
    """The generator to explain; filled in from what the job starts from."""

    recipe: str = Field("gan/dcgan", description="The recipe that trained it.")
    config: dict[str, Any] = Field(default_factory=dict, description="Its config.")

    def restored(self) -> GanConfig:
        """Return the config it was trained with.

        Raises:
            ValueError: not a recipe that draws pictures.
        """
        if self.recipe not in GENERATORS:
            raise ValueError(f"generator.recipe must be one of {', '.join(GENERATORS)}, not {self.recipe!r:.50}")
        config = GENERATORS[self.recipe].restore(self.config)
        if config.data.source == "points":
            raise ValueError("this generator makes points, which show nothing: start from one that draws pictures")
        return config


class UnitsData(Section):
    """Labelled pictures like those the generator draws; their shape is the generator's."""

    batch_size: int = Field(64, ge=1, le=8192, description="Images in one step.")
    cache_mib: int = Field(
        2048, ge=0, description="Memory for decoded images; those that do not fit are decoded at every use."
    )


class Search(Section):
    """What is looked for, and where."""

    attributes: tuple[Name, ...] = Field(
        (), max_length=64, description="Attributes, or classes, of the dataset to explain; empty: all of them."
    )
    layer: str = Field("", max_length=200, description="The hidden layer to search; empty: the last but one.")
    boxes: dict[Name, Box] = Field(
        default_factory=dict,
        description="By attribute, where it shows: left, top, right, bottom as fractions of the picture. Without a box"
        " it is where generated pictures with it differ most from those without.",
    )
    min_weight: float = Field(
        0.0, ge=0, le=100, description="Units whose weight, in deviations, is above this draw the attribute."
    )

    @model_validator(mode="after")
    def _boxes_hold_something(self) -> Self:
        for name, (left, top, right, bottom) in self.boxes.items():
            if left >= right or top >= bottom:
                raise ValueError(f"search.boxes[{name!r}] must be left < right and top < bottom, from 0 to 1")
        return self


class UnitsOptim(Section):
    """AdamW for the network that sees the attributes."""

    lr: float = Field(1e-3, gt=0, le=10, description="Peak learning rate.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Weight decay.")


class UnitsEval(Section):
    """How much is generated for the search and its control."""

    num_images: int = Field(2000, ge=20, le=1_000_000, description="Generated samples that are looked at.")
    num_examples: int = Field(
        256, ge=2, le=100_000, description="Samples with and without an attribute that units are told apart on."
    )
    num_random: int = Field(3, ge=1, le=100, description="Random choices of as many units, for comparison.")
    batch_size: int = Field(128, ge=1, le=8192, description="Samples in one forward.")
    num_samples: int = Field(8, ge=1, le=64, description="Samples in a picture, before and after.")


class FindUnitsConfig(RecipeConfig):
    """Which hidden units of a generator draw what (Radford et al. 2016, section 6.3.2).

    A small network learns the dataset's attributes and finds them in what the generator draws. The result is
    the same generator, which can then be asked for ablations and directions by name.
    """

    SOURCES: ClassVar[tuple[str, ...]] = tuple(GENERATORS)
    NEEDS_SOURCE: ClassVar[bool] = True

    data: UnitsData = UnitsData()
    generator: TrainedGenerator = TrainedGenerator()
    search: Search = Search()
    optim: UnitsOptim = UnitsOptim()
    schedule: Schedule = Schedule(name="cosine")
    eval: UnitsEval = UnitsEval()
    limits: Limits = Limits(
        max_steps=2000, checkpoint_every_steps=500, evaluate_every_steps=1000, sample_every_steps=2000
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "generator": {"recipe": "gan/dcgan", "config": DcganConfig.preset("tiny").model_dump(mode="json")},
            "eval": {"num_images": 600},
            "limits": {
                "max_steps": 200,
                "checkpoint_every_steps": 100,
                "evaluate_every_steps": 200,
                "sample_every_steps": 200,
            },
        },
    }

    def adopt(self, origin: Origin) -> Self:
        generator = {"recipe": origin.recipe, "config": dict(origin.config)}
        try:
            return type(self).model_validate(self.model_dump(mode="json") | {"generator": generator})
        except ValidationError as err:
            wrong = "; ".join(str(one["msg"]) for one in err.errors(include_url=False))
            raise ValueError(f"{origin.name} does not go with this config: {wrong}") from err

    @model_validator(mode="after")
    def _generator_draws_pictures(self) -> Self:
        self.generator.restored()
        return self
