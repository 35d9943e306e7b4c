"""A request for a job, and everything that can be wrong with it before the database is asked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from services.core import names
from services.core.errors import RequestInvalid, Violation
from services.core.texts import faults_of_request_id, faults_of_text
from services.jobs.start import Wanted, parse
from services.recipes.manager import Recipe, RecipeManager
from workers.families.config import RecipeConfig

RESOURCE_CLASSES = ("cpu", "gpu")
MAX_PROCESSES = 64
DEFAULT_MAX_ATTEMPTS = 3
DEFAULT_PRESET = "full"
_LABEL_KEY = re.compile(r"[a-z0-9](?:[a-z0-9_./-]{0,61}[a-z0-9])?")
_MAX_LABELS = 32
_MAX_LABEL_VALUE = 128
_MAX_PRIORITY = 100
_MAX_MAX_ATTEMPTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What somebody asks for, with defaults filled in and nothing checked yet."""

    project: str
    recipe: str
    preset: str
    config: Mapping[str, Any]
    dataset: str
    dataset_version: int
    resource_class: str
    processes: int
    display_name: str
    labels: Mapping[str, str]
    model_id: str
    priority: int
    is_preemptible: bool
    max_attempts: int
    request_id: str
    init_from: str = ""

    def sha256(self) -> str:
        """Hash everything but the request_id, alike for every spelling of the same request."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "request_id"}
        for name in ("is_preemptible", "init_from"):
            # Left out where it was not said: requests hashed before the field came stay the same.
            if not values[name]:
                del values[name]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=dict)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks made of a request; recipe and config are None where they are wrong."""

    violations: list[Violation]
    recipe: Recipe | None
    config: RecipeConfig | None
    dataset_id: str | None
    start: Wanted | None = None


def check(request: JobRequest, recipes: RecipeManager) -> Checked:
    """Find everything wrong with a request, at once."""
    violations = [*_check_shape(request), *_check_labels(request.labels)]
    recipe = recipes.recipes.get(request.recipe)
    config = None
    if recipe is None:
        violations.append(Violation("recipe", recipes.explain_unknown(request.recipe)))
    else:
        try:
            config = recipe.resolve(request.preset, request.config)
        except RequestInvalid as err:
            violations += err.violations
    if config is not None and config.runtime.device == "cuda" and request.resource_class != "gpu":
        text = "'cuda' needs a worker with a GPU: set resources.resource_class to GPU, or the device to 'auto'"
        violations.append(Violation("config.runtime.device", text))
    if config is not None and config.max_processes() < request.processes <= MAX_PROCESSES:
        violations.append(Violation("resources.processes", _too_many(request, config.max_processes())))
    dataset_id = _check_dataset_name(request, violations)
    return Checked(violations, recipe, config, dataset_id, _check_start(request, violations))


def _too_many(request: JobRequest, most: int) -> str:
    if most == 1:
        return f"must be 1: {request.recipe} trains in one process"
    return f"are {request.processes}, which cannot share a batch of {most}: raise data.batch_size or ask for fewer"


def queue_of(request: JobRequest) -> str:
    """Return the queue whose workers have what a job needs; on a CPU processes share one worker's cores."""
    queue = f"train.{request.resource_class}"
    return f"{queue}.x{request.processes}" if request.resource_class == "gpu" and request.processes > 1 else queue


def _check_dataset_name(request: JobRequest, violations: list[Violation]) -> str | None:
    try:
        name = names.parse(request.dataset, "datasets", field="dataset")
    except RequestInvalid as err:
        violations += err.violations
        return None
    if name.project != request.project:
        text = f"belongs to project {name.project!r}; a job uses datasets of its own project {request.project!r}"
        violations.append(Violation("dataset", text))
        return None
    return name.ids[0]


def _check_start(request: JobRequest, violations: list[Violation]) -> Wanted | None:
    try:
        return parse(request.init_from, project=request.project) if request.init_from else None
    except RequestInvalid as err:
        violations += err.violations
        return None


def _check_shape(request: JobRequest) -> list[Violation]:
    found = []
    if request.resource_class not in RESOURCE_CLASSES:
        found.append(Violation("resources.resource_class", "is no known class; use CPU or GPU"))
    if not 1 <= request.processes <= MAX_PROCESSES:
        text = f"must be from 1 to {MAX_PROCESSES}, not {request.processes}"
        found.append(Violation("resources.processes", text))
    # Empty where it follows from the recipe, which is empty itself.
    found += names.faults_of_slug(request.model_id, field="model_id") if request.model_id else []
    if abs(request.priority) > _MAX_PRIORITY:
        text = f"must be from -{_MAX_PRIORITY} to {_MAX_PRIORITY}, not {request.priority}; lower runs first"
        found.append(Violation("priority", text))
    if not 1 <= request.max_attempts <= _MAX_MAX_ATTEMPTS:
        text = f"must be from 1 to {_MAX_MAX_ATTEMPTS}, not {request.max_attempts}; 0 takes {DEFAULT_MAX_ATTEMPTS}"
        found.append(Violation("max_attempts", text))
    if request.dataset_version < 0:
        found.append(Violation("dataset_version", "must not be negative; 0 takes the newest"))
    found += faults_of_text(request.display_name, field="display_name")
    return found + faults_of_request_id(request.request_id)


def _check_labels(labels: Mapping[str, str]) -> list[Violation]:
    found = []
    if len(labels) > _MAX_LABELS:
        found.append(Violation("labels", f"are {len(labels)}; keep at most {_MAX_LABELS}"))
    for key, value in sorted(labels.items()):
        if not _LABEL_KEY.fullmatch(key):
            text = "is not a valid key: use 1 to 63 of a-z, 0-9, '_', '-', '.' and '/', a letter or digit at both ends"
            found.append(Violation(f"labels[{key!r}]", text))
        if len(value) > _MAX_LABEL_VALUE or not value.isprintable():
            found.append(Violation(f"labels[{key!r}]", f"must be at most {_MAX_LABEL_VALUE} printable characters"))
    return found
