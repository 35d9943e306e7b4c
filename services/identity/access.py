"""Which role each rpc needs, and which of its fields name resources. What is not in this table is refused.

A field that names a resource is held against the project of the token before the handler runs; a test
walks the descriptors and fails on an rpc or a field of text that nobody decided about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.core.roles import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one rpc asks of its caller."""

    role: Role
    names: tuple[str, ...] = ()
    """Paths of the fields that carry resource names."""
    parent: str = ""
    """The one of them that means the token's own project where it is empty."""
    is_audited: bool = False
    """Whether calls that succeed are recorded; refused ones always are."""


def _read(*names: str, parent: str = "", is_audited: bool = False) -> Rule:
    return Rule(role=Role.VIEWER, names=(*names, parent) if parent else names, parent=parent, is_audited=is_audited)


def _write(*names: str, parent: str = "", role: Role = Role.SUBMITTER) -> Rule:
    return Rule(role=role, names=(parent, *names) if parent else names, parent=parent, is_audited=True)


def _service(name: str, rules: Mapping[str, Rule]) -> dict[str, Rule]:
    return {f"/{name}/{method}": rule for method, rule in rules.items()}


OPEN = frozenset(f"/grpc.health.v1.Health/{method}" for method in ("Check", "List", "Watch"))
"""Answered without a token: probes have none, and learn nothing but whether the server serves."""

ACCESS: Mapping[str, Rule] = {
    **_service("grpc.reflection.v1alpha.ServerReflection", {"ServerReflectionInfo": _read()}),
    **_service(
        "trainyard.v1.JobService",
        {
            "CreateJob": _write("dataset", "init_from", parent="parent"),
            "GetJob": _read("name"),
            "ListJobs": _read(parent="parent"),
            "WatchJob": _read("name"),
            "CancelJob": _write("name"),
            "PauseJob": _write("name"),
            "ResumeJob": _write("name"),
            # What cannot be taken back needs the highest role.
            "DeleteJob": _write("name", role=Role.ADMIN),
            "ListCheckpoints": _read("parent"),
            "DeleteCheckpoint": _write("name", role=Role.ADMIN),
            "ListArtifacts": _read("parent"),
        },
    ),
    **_service(
        "trainyard.v1.DatasetService",
        {
            "CreateDataset": _write(parent="header.parent"),
            "GetDataset": _read("name"),
            "ListDatasets": _read(parent="parent"),
            "DeleteDataset": _write("name", role=Role.ADMIN),
        },
    ),
    **_service("trainyard.v1.RecipeService", {"ListRecipes": _read(), "GetRecipe": _read()}),
    **_service(
        "trainyard.v1.ModelService",
        {
            "CreateModelVersion": _write("checkpoint", parent="parent"),
            "GetModelVersion": _read("name"),
            "ListModelVersions": _read(parent="parent"),
            "DeleteModelVersion": _write("name", role=Role.ADMIN),
            "DownloadArtifact": _read("name", is_audited=True),
            "CreateDownloadLink": _read("name", is_audited=True),
        },
    ),
    **_service(
        "trainyard.v1.DeploymentService",
        {
            "CreateDeployment": _write("model_version", parent="parent"),
            "GetDeployment": _read("name"),
            "ListDeployments": _read(parent="parent"),
            "UpdateDeployment": _write("name", "model_version"),
            "DeleteDeployment": _write("name"),
            # A client that only predicts needs no right to change anything.
            "Predict": _read("name"),
        },
    ),
    **_service(
        "trainyard.v1.GalleryService",
        {
            "CreateGallery": _write("deployment", parent="parent"),
            "GetGallery": _read("name"),
            "ListGalleries": _read(parent="parent"),
            "UpdateGallery": _write("name"),
            "DeleteGallery": _write("name", role=Role.ADMIN),
            "EnrolIdentity": _write("parent"),
            "ListIdentities": _read("parent"),
            # A person's wish to be forgotten waits for no administrator.
            "DeleteIdentity": _write("name"),
            "Verify": _read("name"),
            "Identify": _read("name"),
            "ReenrolGallery": _write("name", "deployment"),
        },
    ),
}
