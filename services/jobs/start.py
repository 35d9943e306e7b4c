"""What a job starts from: a model version, a checkpoint, uploaded weights, or those that torchvision publishes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from services.core import names
from services.core.errors import (
    CheckpointNotFound,
    DatasetNotFound,
    JobNotFound,
    ModelNotFound,
    RequestInvalid,
    Violation,
)
from services.db import checkpoints, datasets, jobs, models
from services.db.checkpoints import Checkpoint
from services.db.datasets import DatasetVersion
from services.db.session import Session
from services.jobs.near import suggestion
from services.models.version import version_number
from services.recipes.manager import Recipe
from workers.families.catalog import CATALOG, family_of
from workers.families.config import TORCHVISION, WEIGHTS, Origin, RecipeConfig

FIELD = "init_from"
_MAX_KNOWN = 200
_SHAPES = (
    "name a model version (projects/{project}/models/{model}/versions/{version}), a checkpoint"
    " (projects/{project}/jobs/{job}/checkpoints/{checkpoint}), a dataset of weights"
    " (projects/{project}/datasets/{dataset}) or torchvision:{weights},"
    " such as torchvision:ResNet18_Weights.IMAGENET1K_V1"
)
_WEIGHTS = re.compile(r"[A-Za-z0-9_]{1,80}_Weights\.[A-Za-z0-9_]{1,80}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A name with the right shape; what it stands for may not exist."""

    text: str
    kind: Literal["model", "checkpoint", "weights", "torchvision"]
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """What there is under a name."""

    origin: Origin
    spec: dict[str, Any]
    """What the worker needs to fetch it."""
    checkpoint_id: str | None = None
    """What has to stay stored until the job ended."""
    config: dict[str, Any] = field(default_factory=dict)
    """The job's config, completed by it."""


def parse(text: str, *, project: str) -> Wanted:
    """Return what a name asks for.

    Raises:
        RequestInvalid: it has no known shape, or is of another project.
    """
    if text.startswith(f"{TORCHVISION}:"):
        weights = text.removeprefix(f"{TORCHVISION}:")
        if not _WEIGHTS.fullmatch(weights):
            raise _invalid(f"{weights!r} names no weights of torchvision; use one such as ResNet18_Weights.DEFAULT")
        return Wanted(text, "torchvision", (weights,))
    parts = text.split("/")
    if len(parts) == 4 and parts[2] == "datasets":
        name = names.parse(text, "datasets", field=FIELD)
        return Wanted(text, "weights", _own(name, project).ids)
    if len(parts) != 6 or parts[0] != "projects" or (parts[2], parts[4]) not in _KINDS:
        raise _invalid(f"{text!r} cannot be started from; {_SHAPES}")
    name = _own(names.parse(text, parts[2], parts[4], field=FIELD), project)
    kind = _KINDS[parts[2], parts[4]]
    if kind == "model":
        version_number(name.ids[1], field=FIELD)
    return Wanted(text, kind, name.ids)


def find(session: Session, wanted: Wanted, *, project: str) -> Start:
    """Return what a name stands for, and keep it from being retired before the transaction ends.

    Raises:
        RequestInvalid: the project has no such thing.
    """
    try:
        if wanted.kind == "torchvision":
            origin = Origin(wanted.text, "torchvision", TORCHVISION, {})
            return Start(origin, {"name": wanted.text, "kind": "torchvision"})
        if wanted.kind == "weights":
            return _weights(wanted, datasets.hold(session, project, wanted.ids[0]))
        if wanted.kind == "model":
            return _model(session, wanted, project=project)
        job = jobs.get(session, project, wanted.ids[0])
        held = checkpoints.hold(session, job.id, wanted.ids[1])
    except (CheckpointNotFound, DatasetNotFound, JobNotFound, ModelNotFound) as err:
        raise _invalid(f"{err}; {_remedy(session, wanted, project=project)}") from err
    return _checkpoint(wanted.text, job, held)


def complete(config: RecipeConfig, origin: Origin | None, recipe: Recipe) -> RecipeConfig:
    """Return the config completed by what the job starts from.

    Raises:
        RequestInvalid: the recipe does not take it, or needs something and has nothing.
    """
    if origin is None:
        if config.NEEDS_SOURCE:
            raise _invalid(f"{recipe.id} starts from other weights: {_SHAPES}")
        return config
    if origin.recipe not in config.SOURCES:
        takes = f"starts from {' or '.join(config.SOURCES)}" if config.SOURCES else "starts from no other weights"
        others = _takers(origin.recipe, recipe.family)
        instead = f"; {' and '.join(others)} can start from it" if others else ""
        raise _invalid(f"{origin.name} is of {origin.recipe}, but {recipe.id} {takes}{instead}")
    try:
        return config.adopt(origin)
    except ValueError as err:
        raise _invalid(str(err)) from err


def _takers(source: str, family: str) -> list[str]:
    """Return the recipes of a family that start from what a recipe made."""
    named = ((recipe_id, entry) for recipe_id, entry in CATALOG.items() if family_of(recipe_id) == family)
    return [recipe_id for recipe_id, entry in named if source in entry.load_config().SOURCES]


def _remedy(session: Session, wanted: Wanted, *, project: str) -> str:
    """Say what there is in place of what was not found."""
    if wanted.kind == "model":
        known = models.list_ids(session, project, limit=_MAX_KNOWN)
        if wanted.ids[0] in known:
            return f"its newest version is {models.get(session, project, wanted.ids[0]).version}"
        return suggestion(wanted.ids[0], known) or "a job leaves one when it succeeds"
    if wanted.kind == "weights":
        rows = datasets.page(session, project, page_size=_MAX_KNOWN, family=WEIGHTS)
        known = [row.dataset_id for row in rows]
        return suggestion(wanted.ids[0], known) or "import a file of weights first (`trainyard datasets import`)"
    return "list what there is with `trainyard jobs list` and `trainyard checkpoints list` (ListJobs, ListCheckpoints)"


def _model(session: Session, wanted: Wanted, *, project: str) -> Start:
    model_id, version = wanted.ids
    found = models.hold(session, project, model_id, version_number(version, field=FIELD))
    name = names.model_version(project, model_id, found.version)
    if not found.bundle_sha256:
        # Nobody packaged it yet: its checkpoint has the same weights.
        job = jobs.get(session, project, found.job_id)
        return _checkpoint(name, job, checkpoints.hold(session, job.id, found.checkpoint_id or ""))
    origin = Origin(name, "model", found.recipe, found.config)
    return Start(origin, {"name": name, "kind": "model", "id": found.id})


def _checkpoint(name: str, job: jobs.Job, held: Checkpoint) -> Start:
    origin = Origin(name, "checkpoint", job.recipe, job.spec["config"])
    spec = {"name": name, "kind": "checkpoint", "id": held.id, "job_id": job.id}
    return Start(origin, spec, checkpoint_id=held.id)


def _weights(wanted: Wanted, version: DatasetVersion) -> Start:
    if version.family != WEIGHTS:
        raise _invalid(f"{wanted.text} holds {version.family} data; a job starts from a dataset of weights")
    spec = {"name": wanted.text, "kind": "weights", "id": version.id, "version": version.version}
    return Start(Origin(wanted.text, "weights", WEIGHTS, {}), spec)


def _own(name: names.Name, project: str) -> names.Name:
    if name.project != project:
        raise _invalid(f"belongs to project {name.project!r}; a job starts from what its own project {project!r} has")
    return name


def _invalid(text: str) -> RequestInvalid:
    return RequestInvalid(violations=[Violation(FIELD, text)])


_KINDS: dict[tuple[str, str], Literal["model", "checkpoint"]] = {
    ("models", "versions"): "model",
    ("jobs", "checkpoints"): "checkpoint",
}
