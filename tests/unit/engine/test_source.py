"""What a job starts from is applied once, before its first step, and remembered in its bundle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import pytest
import torch

from services.core.errors import IntegrityError, RequestInvalid
from tests.builders.toy_recipe import TOY_CATALOG, toy_config
from tests.builders.training import attempt
from workers.engine.plan import SourcePlan
from workers.engine.source import read_published, read_source
from workers.engine.state import MODEL
from workers.families.base import Placement, Source, TrainState

NAME = "toy/patterns"
TOY = TOY_CATALOG[NAME].load_recipe()


class Remembering(TOY):  # type: ignore[misc, valid-type]
    """Notes what it was told to start from."""

    loaded: ClassVar[list[tuple[int, Source]]] = []

    def load_source(self, state: TrainState, source: Source) -> None:
        self.loaded.append((state.step, source))


class Rewriting(TOY):  # type: ignore[misc, valid-type]
    """Starts from zeros, and notes whether the average does too."""

    starts: ClassVar[list[bool]] = []

    def load_source(self, state: TrainState, source: Source) -> None:
        with torch.no_grad():
            for parameter in state.modules["network"].parameters():
                parameter.zero_()

    def train_step(self, state: TrainState, batch: Any, placement: Placement) -> dict[str, torch.Tensor]:
        if state.step == 0:
            self.starts.append(not any(parameter.any() for parameter in state.ema["network"].parameters()))
        scalars: dict[str, torch.Tensor] = super().train_step(state, batch, placement)
        return scalars


CATALOG = {NAME: replace(TOY_CATALOG[NAME], recipe=f"{__name__}:Remembering")}
REWRITING = {NAME: replace(TOY_CATALOG[NAME], recipe=f"{__name__}:Rewriting")}


@pytest.fixture(autouse=True)
def loaded() -> list[tuple[int, Source]]:
    Remembering.loaded.clear()
    return Remembering.loaded


def model_plan(directory: Path) -> SourcePlan:
    return SourcePlan(name="projects/p/models/m/versions/1", kind="model", recipe=NAME, config={}, directory=directory)


def weights_plan(name: str, directory: Path) -> SourcePlan:
    return SourcePlan(
        name=f"torchvision:{name}", kind="torchvision", recipe="torchvision", config={}, directory=directory
    )


def test_a_model_is_loaded_before_the_first_step_and_never_by_a_resume(
    tmp_path: Path, loaded: list[tuple[int, Source]]
) -> None:
    first = attempt(tmp_path, toy_config())
    source = model_plan(Path(first.final["bundle_dir"]))

    stopped = attempt(tmp_path, toy_config(), stop_at=3, catalog=CATALOG, source=source)
    resumed = attempt(tmp_path, toy_config(), catalog=CATALOG, source=source, resume_dir=stopped.checkpoint_dir(3))

    assert resumed.error is None
    ((step, given),) = loaded
    assert step == 0
    assert given.constants == json.loads((source.directory / "bundle.json").read_bytes())["spec"]["constants"]
    assert given.tensors.keys() > set()
    bundle = json.loads((Path(resumed.final["bundle_dir"]) / "bundle.json").read_bytes())
    assert bundle["origin"] == source.name


def test_a_checkpoint_is_named_by_module_with_averages_where_there_are_any(
    tmp_path: Path, loaded: list[tuple[int, Source]]
) -> None:
    first = attempt(tmp_path, toy_config())
    directory = first.checkpoint_dir(first.checkpoint_steps()[-1])
    stored = first.checkpoint(first.checkpoint_steps()[-1])
    plan = SourcePlan(
        name="projects/p/jobs/j/checkpoints/c", kind="checkpoint", recipe=NAME, config={}, directory=directory
    )

    attempt(tmp_path, toy_config(), stop_at=1, catalog=CATALOG, source=plan)

    ((_, given),) = loaded
    assert given.tensors.keys() == stored.files[MODEL].keys()
    averages = stored.files.get("ema.safetensors", {})
    for name, value in given.tensors.items():
        assert torch.equal(value, averages.get(name, stored.files[MODEL][name]))


def test_an_average_starts_from_the_source_too(tmp_path: Path) -> None:
    Rewriting.starts.clear()
    first = attempt(tmp_path, toy_config(), stop_at=4)
    plan = SourcePlan(
        name="projects/p/jobs/j/checkpoints/c",
        kind="checkpoint",
        recipe=NAME,
        config={},
        directory=first.checkpoint_dir(first.checkpoint_steps()[-1]),
    )

    attempt(tmp_path, toy_config(), stop_at=1, catalog=REWRITING, source=plan)

    assert Rewriting.starts == [True]


def test_a_recipe_that_takes_no_source_says_which_one_to_leave_out(tmp_path: Path) -> None:
    first = attempt(tmp_path, toy_config())

    outcome = attempt(tmp_path, toy_config(), source=model_plan(Path(first.final["bundle_dir"])))

    assert "leave out projects/p/models/m/versions/1" in str(outcome.error)


def test_weights_nobody_publishes_are_refused_with_close_names(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match=r"ResNet18_Weights\.IMAGENET1K_V1"):
        read_source(weights_plan("ResNet18_Weights.IMAGENET1K_V9", tmp_path / "none"), cache_dir=tmp_path)


def test_weights_that_cannot_be_downloaded_are_asked_of_the_operator(tmp_path: Path) -> None:
    def refuse(url: str, path: Path) -> None:
        raise URLError("no route to host")

    plan = weights_plan("ResNet18_Weights.IMAGENET1K_V1", tmp_path / "none")
    with pytest.raises(RequestInvalid, match=r"weights/torchvision/ResNet18_Weights\.IMAGENET1K_V1"):
        read_source(plan, cache_dir=tmp_path, download=refuse)


def test_a_file_put_into_the_store_by_mistake_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    torch.save({"fc.weight": torch.ones(2)}, tmp_path / "source" / "weights.pth")

    with pytest.raises(IntegrityError, match=r"resnet18-f37072fd\.pth"):
        read_source(weights_plan("ResNet18_Weights.IMAGENET1K_V1", tmp_path / "source"), cache_dir=tmp_path)


def test_a_published_file_is_read_where_its_digest_is_that_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.arange(3.0)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    found = read_published(path, f"net-{digest[:8]}.pth")

    assert found["fc.weight"].tolist() == [0.0, 1.0, 2.0]
