"""The Python SDK: one class with a typed method for every call of the API.

with Trainyard() as trainyard:
    job = trainyard.create_job("detection/yolo_v1", dataset="digits", preset="tiny")
    for event in trainyard.watch(job.name):
        print(event)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from trainyard.v1 import (
    common_pb2,
    dataset_pb2,
    dataset_pb2_grpc,
    deployment_pb2_grpc,
    gallery_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    recipe_pb2,
    recipe_pb2_grpc,
)

from services.client.address import resolve_address
from services.client.channel import Caller, open_channel, wait_for_contact
from services.client.choice import BEST, choose, choose_best
from services.client.credentials import names_token, resolve_credentials, resolve_project
from services.client.deployment_calls import DeploymentCalls
from services.client.gallery_calls import PAGE_SIZE, GalleryCalls
from services.client.names import Namer
from services.client.pack import as_archive
from services.client.plain import as_struct
from services.client.transfer import (
    Downloaded,
    Progress,
    ignore_progress,
    receive,
    safe_relative,
    sha256_of,
    upload_messages,
)
from services.client.watch import EVENTS_AT_ONCE, PATIENCE_SECONDS, follow
from services.core.ids import new_id


class JobFields(TypedDict, total=False):
    """What a new job may say beside recipe, dataset, preset and config."""

    resources: job_pb2.Resources
    display_name: str
    labels: Mapping[str, str]
    model_id: str
    priority: int
    is_preemptible: bool
    max_attempts: int
    dataset_version: int
    request_id: str
    init_from: str


class DatasetFields(TypedDict, total=False):
    """What an upload may say beside its file and id."""

    family: str
    format: dataset_pb2.DatasetFormat | str
    display_name: str
    val_fraction: float
    split_seed: int
    request_id: str


class Trainyard(DeploymentCalls, GalleryCalls):
    """A platform and one project in it. Resources are named by id or by full name.

    Without an address of the caller it is that of TRAINYARD_SERVER, or where the platform of the state directory runs.
    Without a token it is that of TRAINYARD_TOKEN, of TRAINYARD_TOKEN_FILE, or, for that platform alone, the one that
    `trainyard up` keeps beside it; without a project it is the token's.

    Every method raises `ApiError` with code, reason, message and field violations. Creates are safe
    to repeat: without a request_id of the caller each call has one of its own, so that a lost reply
    never makes a second resource.
    """

    def __init__(
        self,
        address: str | None = None,
        project: str | None = None,
        *,
        token: str | None = None,
        token_file: str | None = None,
    ) -> None:
        has_token = names_token(os.environ, token=token, token_file=token_file)
        self.address = resolve_address(address, os.environ, has_token=has_token)
        shown = resolve_credentials(self.address, os.environ, token=token, token_file=token_file)
        self.name = Namer(resolve_project(project, os.environ, shown))
        self._caller = Caller(self.address, shown.metadata)
        self._channel = open_channel(self.address, shown.tls)
        self._jobs = job_pb2_grpc.JobServiceStub(self._channel)
        self._datasets = dataset_pb2_grpc.DatasetServiceStub(self._channel)
        self._recipes = recipe_pb2_grpc.RecipeServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._deployments = deployment_pb2_grpc.DeploymentServiceStub(self._channel)
        self._galleries = gallery_pb2_grpc.GalleryServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Recipes

    def list_recipes(self, *, family: str = "") -> Iterator[recipe_pb2.Recipe]:
        request = recipe_pb2.ListRecipesRequest(page_size=PAGE_SIZE, family=family)
        return self._caller.pages(self._recipes.ListRecipes, request, lambda reply: reply.recipes)

    def get_recipe(self, recipe: str) -> recipe_pb2.Recipe:
        """Return a recipe, named as in `detection/yolo_v1`, with its config schema and presets."""
        reply = self._caller.unary(self._recipes.GetRecipe, recipe_pb2.GetRecipeRequest(name=recipe))
        return reply.recipe

    # Datasets

    def create_dataset(
        self,
        source: Path | str,
        *,
        dataset_id: str,
        on_progress: Progress = ignore_progress,
        **fields: Unpack[DatasetFields],
    ) -> dataset_pb2.Dataset:
        """Upload an archive (zip, tar, tar.gz), a folder or a `.safetensors` file as the next version of a dataset.

        Returns once it is imported. `on_progress` is called with bytes sent and bytes in all; the import begins after
        the last byte.

        Raises:
            PathInvalid: there is no such file, or what it holds cannot be a dataset.
        """
        fields.setdefault("request_id", new_id())
        with as_archive(Path(source), on_progress=ignore_progress) as archive:
            header = dataset_pb2.CreateDatasetHeader(
                parent=self.name.parent,
                dataset_id=dataset_id,
                size_bytes=archive.stat().st_size,
                sha256=sha256_of(archive),
                **fields,
            )
            reply = self._caller.send(self._datasets.CreateDataset, upload_messages(header, archive, on_progress))
        return reply.dataset

    def create_dataset_from_url(
        self, url: str, *, dataset_id: str, sha256: str = "", **fields: Unpack[DatasetFields]
    ) -> dataset_pb2.Dataset:
        """Let the server fetch an archive from a public https address; returns once it is imported.

        With `sha256`, anything else that the address holds is refused.
        """
        fields.setdefault("request_id", new_id())
        header = dataset_pb2.CreateDatasetHeader(
            parent=self.name.parent, dataset_id=dataset_id, source_url=url, sha256=sha256, **fields
        )
        messages = iter([dataset_pb2.CreateDatasetRequest(header=header)])
        return self._caller.send(self._datasets.CreateDataset, messages).dataset

    def get_dataset(self, dataset: str, *, version: int = 0) -> dataset_pb2.Dataset:
        """Return one version of a dataset; 0 is the newest."""
        request = dataset_pb2.GetDatasetRequest(name=self.name.dataset(dataset), version=version)
        return self._caller.unary(self._datasets.GetDataset, request).dataset

    def list_datasets(self, *, family: str = "") -> Iterator[dataset_pb2.Dataset]:
        """Yield the newest version of every dataset, newest first."""
        request = dataset_pb2.ListDatasetsRequest(parent=self.name.parent, page_size=PAGE_SIZE, family=family)
        return self._caller.pages(self._datasets.ListDatasets, request, lambda reply: reply.datasets)

    def delete_dataset(self, dataset: str) -> None:
        """Delete a dataset with all its versions."""
        request = dataset_pb2.DeleteDatasetRequest(name=self.name.dataset(dataset))
        self._caller.unary(self._datasets.DeleteDataset, request, is_repeatable=False)

    # Jobs

    def create_job(
        self,
        recipe: str,
        *,
        dataset: str,
        preset: str = "",
        config: Mapping[str, Any] | None = None,
        **fields: Unpack[JobFields],
    ) -> job_pb2.Job:
        """Ask for a training job; `config` holds nested overrides such as `{"optim": {"lr": 0.01}}`.

        `init_from` is a model version or a checkpoint, named in full, as `model/3`, as `model` for its newest
        version, as `job/checkpoint`, as `job/best`, weights of yours as `datasets/name`, or those of torchvision
        as `torchvision:ResNet18_Weights.DEFAULT`.

        Raises:
            ApiError: the request is refused, or no checkpoint of the job to start from was evaluated.
        """
        fields.setdefault("request_id", new_id())
        if start := fields.get("init_from"):
            fields["init_from"] = self._found(self.name.start(start))
        request = job_pb2.CreateJobRequest(
            parent=self.name.parent,
            recipe=recipe,
            preset=preset,
            config=as_struct(config),
            dataset=self.name.dataset(dataset),
            **fields,
        )
        return self._caller.unary(self._jobs.CreateJob, request).job

    def get_job(self, job: str) -> job_pb2.Job:
        return self.look_at_job(job).job

    def get_attempts(self, job: str) -> Sequence[job_pb2.Attempt]:
        """Return the executions of a job so far, oldest first: what was tried, and why it ended."""
        return self.look_at_job(job).attempts

    def get_waiting(self, job: str) -> job_pb2.Waiting | None:
        """Return who could run a queued job; None once it is queued no more."""
        reply = self.look_at_job(job)
        return reply.waiting if reply.HasField("waiting") else None

    def look_at_job(self, job: str) -> job_pb2.GetJobResponse:
        """Return a job, its attempts and, while it is queued, who could run it, by one call."""
        return self._caller.unary(self._jobs.GetJob, job_pb2.GetJobRequest(name=self.name.job(job)))

    def list_jobs(self, *, states: Sequence[job_pb2.JobState] = (), recipe: str = "") -> Iterator[job_pb2.Job]:
        """Yield jobs, newest first."""
        request = job_pb2.ListJobsRequest(parent=self.name.parent, page_size=PAGE_SIZE, states=states, recipe=recipe)
        return self._caller.pages(self._jobs.ListJobs, request, lambda reply: reply.jobs)

    def cancel_job(self, job: str, *, reason: str = "") -> job_pb2.Job:
        """Ask a job to stop; a job that ended already is returned as it is."""
        request = job_pb2.CancelJobRequest(name=self.name.job(job), reason=reason)
        return self._caller.unary(self._jobs.CancelJob, request).job

    def pause_job(self, job: str, *, reason: str = "") -> job_pb2.Job:
        """Keep a job from going on until it is resumed; a running one saves a checkpoint first."""
        request = job_pb2.PauseJobRequest(name=self.name.job(job), reason=reason)
        return self._caller.unary(self._jobs.PauseJob, request).job

    def resume_job(self, job: str) -> job_pb2.Job:
        """Let a paused job queue again, to go on from its checkpoint."""
        return self._caller.unary(self._jobs.ResumeJob, job_pb2.ResumeJobRequest(name=self.name.job(job))).job

    def watch(
        self,
        job: str,
        *,
        after_seq: int = 0,
        patience_seconds: float = PATIENCE_SECONDS,
        on_reconnect: Callable[[int], None] = lambda retry: None,
    ) -> Iterator[job_pb2.JobEvent]:
        """Yield the events of a job after `after_seq` up to its terminal one, each exactly once.

        Reconnects when the server goes away, for at most `patience_seconds` without contact;
        `on_reconnect` hears the number of each try.
        """
        name = self.name.job(job)

        def connect(seq: int) -> Iterator[job_pb2.WatchJobResponse]:
            request = job_pb2.WatchJobRequest(name=name, after_seq=seq, max_events=EVENTS_AT_ONCE)
            return self._caller.stream(self._jobs.WatchJob, request)

        return follow(
            connect,
            after_seq=after_seq,
            patience_seconds=patience_seconds,
            on_reconnect=on_reconnect,
            wait=partial(wait_for_contact, self._channel),
        )

    def delete_job(self, job: str) -> None:
        """Delete a job that has ended, with its history, checkpoints and artifacts."""
        request = job_pb2.DeleteJobRequest(name=self.name.job(job))
        self._caller.unary(self._jobs.DeleteJob, request, is_repeatable=False)

    def list_checkpoints(self, job: str) -> Iterator[job_pb2.Checkpoint]:
        """Yield the committed checkpoints of a job, the highest step first."""
        request = job_pb2.ListCheckpointsRequest(parent=self.name.job(job), page_size=PAGE_SIZE)
        return self._caller.pages(self._jobs.ListCheckpoints, request, lambda reply: reply.checkpoints)

    def best_checkpoint(self, job: str) -> job_pb2.Checkpoint:
        """Return the committed checkpoint of the best figure.

        Raises:
            ApiError: there is no such job, it has no checkpoint, or none was evaluated.
        """
        return choose_best(job, list(self.list_checkpoints(job)))

    def _found(self, name: str) -> str:
        """Return the full name of a checkpoint for one that ends in `/checkpoints/best` or in a step; others pass."""
        job, _, last = name.partition("/checkpoints/")
        is_looked_up = last == BEST or last.isdigit()
        return choose(job, list(self.list_checkpoints(job)), last).name if is_looked_up else name

    def delete_checkpoint(self, checkpoint: str) -> None:
        """Delete a checkpoint of a job that has ended, named in full or as `job/checkpoint`."""
        request = job_pb2.DeleteCheckpointRequest(name=self.name.checkpoint(checkpoint))
        self._caller.unary(self._jobs.DeleteCheckpoint, request, is_repeatable=False)

    def delete_model_version(self, model_version: str) -> None:
        """Delete a model version that nothing uses, named in full or as `model/3`."""
        request = model_pb2.DeleteModelVersionRequest(name=self.name.model_version(model_version))
        self._caller.unary(self._models.DeleteModelVersion, request, is_repeatable=False)

    def list_artifacts(self, job: str) -> Iterator[job_pb2.Artifact]:
        """Yield the artifacts of a job, newest first."""
        request = job_pb2.ListArtifactsRequest(parent=self.name.job(job), page_size=PAGE_SIZE)
        return self._caller.pages(self._jobs.ListArtifacts, request, lambda reply: reply.artifacts)

    # Models and downloads

    def create_model_version(self, checkpoint: str, *, model: str = "", request_id: str = "") -> model_pb2.ModelVersion:
        """Make a checkpoint, named in full, as `job/checkpoint`, `job/best` or by its step, the next version of a model.

        Raises:
            ApiError: there is no such checkpoint, several have this step, or none of the job's was evaluated.
        """
        request = model_pb2.CreateModelVersionRequest(
            parent=self.name.model(model) if model else "",
            checkpoint=self._found(self.name.checkpoint(checkpoint)),
            request_id=request_id or new_id(),
        )
        return self._caller.unary(self._models.CreateModelVersion, request).model_version

    def get_model_version(self, model_version: str) -> model_pb2.ModelVersion:
        """Return a version, named in full, as `model/3`, or as `model` for the newest."""
        request = model_pb2.GetModelVersionRequest(name=self.name.model_version(model_version))
        return self._caller.unary(self._models.GetModelVersion, request).model_version

    def list_model_versions(self, *, model: str = "") -> Iterator[model_pb2.ModelVersion]:
        """Yield the versions of one model or of the whole project, newest first."""
        parent = self.name.model(model) if model else self.name.parent
        request = model_pb2.ListModelVersionsRequest(parent=parent, page_size=PAGE_SIZE)
        return self._caller.pages(self._models.ListModelVersions, request, lambda reply: reply.model_versions)

    def download(
        self, name: str, target: Path | str, *, file: str = "", on_progress: Progress = ignore_progress
    ) -> Downloaded:
        """Fetch an artifact, or one file of a checkpoint or model version, into a path or an existing folder.

        Artifacts are named in full, the others also as `job/checkpoint`, `job/best`, `model/3` or `model`. The bytes
        are compared with their sha256 before the file appears under its name.
        """
        request = model_pb2.DownloadArtifactRequest(name=self._found(self.name.stored(name)), file=file)
        return receive(self._caller.stream(self._models.DownloadArtifact, request), Path(target), on_progress)

    def create_download_link(self, name: str, *, file: str = "") -> model_pb2.CreateDownloadLinkResponse:
        """Return an address where an S3 store itself hands out what `download` fetches, for 15 minutes."""
        request = model_pb2.CreateDownloadLinkRequest(name=self._found(self.name.stored(name)), file=file)
        return self._caller.unary(self._models.CreateDownloadLink, request)

    def download_files(
        self,
        name: str,
        files: Sequence[common_pb2.StoredFile],
        folder: Path | str,
        *,
        on_progress: Progress = ignore_progress,
    ) -> list[Downloaded]:
        """Fetch files of a checkpoint or model version into a folder, under their own relative names."""
        total, before = sum(file.size_bytes for file in files), 0
        done = []
        for file in files:
            target = Path(folder) / safe_relative(file.name)
            progress = _shifted(on_progress, before, total)
            done.append(self.download(name, target, file=file.name, on_progress=progress))
            before += file.size_bytes
        return done


def _shifted(on_progress: Progress, before: int, total: int) -> Progress:
    return lambda size, _: on_progress(before + size, total)
