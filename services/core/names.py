"""Resource names, `projects/{project}/jobs/{job}` and so on: built and parsed here only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.core.errors import RequestInvalid, Violation

DEFAULT_PROJECT = "default"
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
SLUG_RULE = "use 1 to 63 lower-case letters, digits and hyphens, starting and ending with a letter or digit"


@dataclass(frozen=True, slots=True)
class Name:
    """The ids inside one resource name, in order."""

    project: str
    ids: tuple[str, ...]


def faults_of_slug(value: str, *, field: str) -> list[Violation]:
    """Return why `value` is no id; nothing where it is one."""
    return [] if SLUG.fullmatch(value) else [Violation(field, f"{value!r:.80} is not a valid id: {SLUG_RULE}")]


def check_slug(value: str, *, field: str) -> str:
    """Return `value`, or raise RequestInvalid naming the field."""
    if violations := faults_of_slug(value, field=field):
        raise RequestInvalid(violations=violations)
    return value


def project(project_id: str) -> str:
    return f"projects/{project_id}"


def job(project_id: str, job_id: str) -> str:
    return f"projects/{project_id}/jobs/{job_id}"


def checkpoint(project_id: str, job_id: str, checkpoint_id: str) -> str:
    return f"projects/{project_id}/jobs/{job_id}/checkpoints/{checkpoint_id}"


def artifact(project_id: str, job_id: str, artifact_id: str) -> str:
    return f"projects/{project_id}/jobs/{job_id}/artifacts/{artifact_id}"


def dataset(project_id: str, dataset_id: str) -> str:
    return f"projects/{project_id}/datasets/{dataset_id}"


def model_version(project_id: str, model_id: str, version: int) -> str:
    return f"projects/{project_id}/models/{model_id}/versions/{version}"


def deployment(project_id: str, deployment_id: str) -> str:
    return f"projects/{project_id}/deployments/{deployment_id}"


def gallery(project_id: str, gallery_id: str) -> str:
    return f"projects/{project_id}/galleries/{gallery_id}"


def identity(project_id: str, gallery_id: str, identity_id: str) -> str:
    return f"projects/{project_id}/galleries/{gallery_id}/identities/{identity_id}"


def recipe(recipe_id: str) -> str:
    return f"recipes/{recipe_id}"


def parse(name: str, *collections: str, field: str = "name") -> Name:
    """Parse `projects/{p}/{collection}/{id}...` with exactly these collections.

    Raises:
        RequestInvalid: the name has another shape; the violation shows the expected one.
    """
    shape = "/".join(["projects/{project}", *(f"{c}/{{{_singular(c)}}}" for c in collections)])
    parts = name.split("/")
    is_shaped = len(parts) == 2 + 2 * len(collections) and parts[0] == "projects"
    is_shaped = is_shaped and all(parts[2 + 2 * i] == c for i, c in enumerate(collections))
    ids = parts[1::2] if is_shaped else []
    if not is_shaped or not all(SLUG.fullmatch(part) for part in ids):
        raise RequestInvalid(violations=[Violation(field, f"{name!r} does not match {shape}")])
    return Name(ids[0], tuple(ids[1:]))


def parse_project(parent: str, *, field: str = "parent") -> str:
    """Return the project id of `projects/{project}`; an empty parent means the default project."""
    return parse(parent, field=field).project if parent else DEFAULT_PROJECT


def _singular(collection: str) -> str:
    return f"{collection[:-3]}y" if collection.endswith("ies") else collection.removesuffix("s")
