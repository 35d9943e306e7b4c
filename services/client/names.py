"""Ids of the command line into resource names; full names pass as they are."""

from __future__ import annotations

from dataclasses import dataclass

from services.core import names


@dataclass(frozen=True, slots=True)
class Namer:
    """Builds names of one project."""

    project: str

    @property
    def parent(self) -> str:
        return names.project(self.project)

    def job(self, job: str) -> str:
        return job if _is_full(job) else names.job(self.project, job)

    def dataset(self, dataset: str) -> str:
        return dataset if _is_full(dataset) else names.dataset(self.project, dataset)

    def deployment(self, deployment: str) -> str:
        return deployment if _is_full(deployment) else names.deployment(self.project, deployment)

    def gallery(self, gallery: str) -> str:
        return gallery if _is_full(gallery) else names.gallery(self.project, gallery)

    def identity(self, identity: str) -> str:
        """Take a full name, or `gallery/identity`."""
        if _is_full(identity):
            return identity
        gallery, _, identity_id = identity.partition("/")
        return names.identity(self.project, gallery, identity_id)

    def model(self, model: str) -> str:
        return model if _is_full(model) else f"{self.parent}/models/{model}"

    def model_version(self, model_version: str) -> str:
        """Take a full name, `model/3`, or `model` for its newest version."""
        if _is_full(model_version):
            return model_version if "/versions/" in model_version else f"{model_version}/versions/latest"
        model, _, version = model_version.partition("/")
        return f"{self.parent}/models/{model}/versions/{version or 'latest'}"

    def checkpoint(self, checkpoint: str) -> str:
        """Take a full name, or `job/checkpoint`."""
        if _is_full(checkpoint):
            return checkpoint
        job, _, checkpoint_id = checkpoint.partition("/")
        return names.checkpoint(self.project, job, checkpoint_id)

    def start(self, start: str) -> str:
        """Take a full name, `model/3`, `model` for its newest version, `job/checkpoint`,
        `datasets/weights`, or `torchvision:...`.

        Ids of checkpoints are long; versions are numbers.
        """
        if ":" in start or "/checkpoints/" in start:
            return start
        kind, _, last = start.partition("/")
        if kind == "datasets" or "/datasets/" in start:
            return self.dataset(last if kind == "datasets" else start)
        return self.model_version(start) if _is_full(start) else self.stored(start)

    def stored(self, name: str) -> str:
        """Take a full name, `model/3`, `model` for its newest version, or `job/checkpoint`."""
        last = name.partition("/")[2]
        if _is_full(name) or (last and last != "latest" and not last.isdigit()):
            return self.checkpoint(name)
        return self.model_version(name)


def short(name: str) -> str:
    """Return the last id of a resource name."""
    return name.rpartition("/")[2]


def model_label(name: str) -> str:
    """Return `model/3` for the name of a model version."""
    parts = name.split("/")
    return f"{parts[3]}/{parts[5]}" if len(parts) == 6 else name


def served_name(deployment: str) -> str:
    """Return the model name that TorchServe knows a deployment by, from the deployment's full name."""
    _, project, _, deployment_id = deployment.split("/")
    return f"{project}--{deployment_id}"


def _is_full(name: str) -> bool:
    return name.startswith("projects/")
