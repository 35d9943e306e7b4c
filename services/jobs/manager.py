"""Use cases of jobs. Each is one transaction; what is wrong with a request is found before it writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from services.core import names
from services.core.errors import DatasetNotFound, RequestInvalid, Violation
from services.core.ids import new_id
from services.core.states import JobState
from services.db import artifacts, checkpoints, datasets, jobs, quotas
from services.db.artifacts import Artifact
from services.db.checkpoints import Checkpoint
from services.db.datasets import DatasetVersion
from services.db.jobs import Attempt, Event, Job, NewJob
from services.db.session import Session
from services.db.work import Work
from services.identity.room import Room
from services.jobs import start as sources
from services.jobs.near import suggestion
from services.jobs.request import Checked, JobRequest, check, queue_of
from services.jobs.waiting import Waiting, waiting_of
from services.jobs.watch import EventHub
from services.recipes.manager import Recipe, RecipeManager
from services.rpc.paging import Page, PageRequest, by_time
from workers.families.catalog import metric_mode
from workers.families.config import RecipeConfig

# Others may have none: faces have people, and what is generated needs no names.
_CLASS_FAMILIES = frozenset({"detection", "classification", "segmentation"})


MAX_ATTEMPTS_SHOWN = 50


class JobManager:
    """Creates, finds, follows and steers jobs."""

    def __init__(self, work: Work, recipes: RecipeManager, hub: EventHub) -> None:
        self._work = work
        self._room = Room(work)
        self._recipes = recipes
        self._hub = hub

    async def create(self, request: JobRequest) -> Job:
        """Store a job; the same request_id with the same request returns the job it made first.

        Raises:
            RequestInvalid: everything wrong with the request.
            IdempotencyConflict: the request_id was used for another request.
            QuotaExceeded: the project has too many jobs waiting, or no bytes left.
        """
        checked = check(request, self._recipes)
        if checked.violations or checked.recipe is None or checked.config is None:
            found = await self._work.read(lambda session: _named_violations(session, request, checked))
            raise RequestInvalid(violations=[*checked.violations, *found])
        config, sha256 = checked.config, request.sha256()
        new = _new_job(request, sha256, config)
        full = await self._room.refusal(new.project)

        def write(session: Session) -> Job:
            job, is_new = _insert(session, request, new, checked)
            # A repetition of a request that was stored is no further job, and asks for no quota.
            if is_new and full is not None:
                raise full
            if is_new:
                quotas.check_queued(session, new.project)
            return job

        return await self._work.write(write, made=lambda job: names.job(job.project, job.id))

    async def get(self, project: str, job_id: str) -> Job:
        return await self._work.read(lambda session: jobs.get(session, project, job_id))

    async def waiting(self, job: Job) -> Waiting | None:
        """Return who could run a job, None where it is not queued."""
        if job.state is not JobState.QUEUED:
            return None
        return await self._work.read(lambda session: waiting_of(session, job))

    async def attempts(self, project: str, job_id: str) -> Sequence[Attempt]:
        """Return the last attempts of a job, oldest first."""

        def read(session: Session) -> Sequence[Attempt]:
            jobs.get(session, project, job_id)
            return jobs.list_attempts(session, job_id)[-MAX_ATTEMPTS_SHOWN:]

        return await self._work.read(read)

    async def list(
        self, project: str, paging: PageRequest, *, states: Sequence[JobState], recipe: str | None
    ) -> Page[Job]:
        after = paging.time_key
        rows = await self._work.read(
            lambda session: jobs.page(
                session, project, page_size=paging.size + 1, after=after, states=states, recipe=recipe
            )
        )
        return paging.cut(rows, by_time)

    async def cancel(self, project: str, job_id: str, reason: str) -> Job:
        return await self._work.write(lambda session: jobs.cancel(session, project, job_id, reason))

    async def pause(self, project: str, job_id: str, reason: str) -> Job:
        return await self._work.write(lambda session: jobs.pause(session, project, job_id, reason))

    async def resume(self, project: str, job_id: str) -> Job:
        """Let a paused job go on.

        Raises:
            QuotaExceeded: the project has too many jobs waiting.
        """
        return await self._work.write(lambda session: _resume(session, project, job_id))

    async def delete(self, project: str, job_id: str) -> None:
        """Forget a job that ended, and all of it; the controller removes its objects.

        Raises:
            JobNotFound: the project has no such job.
            PreconditionFailed: it has not ended, or something still needs it.
        """
        await self._work.write(lambda session: jobs.delete(session, project, job_id))

    async def watch(self, project: str, job_id: str, after_seq: int) -> AsyncIterator[Sequence[Event]]:
        """Yield the events after `after_seq` in order, past and live, up to the terminal one; all there are at once.

        Raises:
            JobNotFound: the project has no such job.
            RequestInvalid: `after_seq` is not in the job's history.
            ServerStopping: the server drains; resume from the last event elsewhere.
        """
        job = await self.get(project, job_id)
        if not 0 <= after_seq <= job.event_seq:
            text = f"must be from 0 to {job.event_seq}, the newest event of this job, not {after_seq}"
            raise RequestInvalid(violations=[Violation("after_seq", text)])
        async for events in self._hub.follow(job, after_seq):
            yield events

    async def list_checkpoints(self, project: str, job_id: str, paging: PageRequest) -> tuple[Page[Checkpoint], str]:
        """Return a page of a job's checkpoints, and the id of the best of them all, if any was evaluated."""
        after = paging.time_key

        def read(session: Session) -> tuple[list[Checkpoint], str]:
            job = jobs.get(session, project, job_id)
            rows = checkpoints.page(session, job_id, page_size=paging.size + 1, after=after)
            return rows, checkpoints.best_id(session, job_id, metric_mode=metric_mode(job.recipe))

        rows, best_id = await self._work.read(read)
        return paging.cut(rows, by_time), best_id

    async def delete_checkpoint(self, project: str, job_id: str, checkpoint_id: str) -> None:
        """Hide a checkpoint for good; the controller removes its objects.

        Raises:
            CheckpointNotFound: there is none.
            PreconditionFailed: something still needs it.
        """

        def write(session: Session) -> None:
            jobs.get(session, project, job_id)
            checkpoints.retire(session, job_id, checkpoint_id)

        await self._work.write(write)

    async def list_artifacts(self, project: str, job_id: str, paging: PageRequest) -> Page[Artifact]:
        after = paging.time_key

        def read(session: Session) -> list[Artifact]:
            jobs.get(session, project, job_id)
            return artifacts.page(session, job_id, page_size=paging.size + 1, after=after)

        return paging.cut(await self._work.read(read), by_time)


def _resume(session: Session, project: str, job_id: str) -> Job:
    was_paused = jobs.get(session, project, job_id).state is JobState.PAUSED
    job = jobs.resume(session, project, job_id)
    if was_paused:
        quotas.check_queued(session, project)
    return job


def _insert(session: Session, request: JobRequest, new: NewJob, checked: Checked) -> tuple[Job, bool]:
    version, violations = _look_up_dataset(session, request, checked)
    start, wrong = _look_up_start(session, request, checked)
    violations += wrong
    if violations or version is None:
        # A repetition must find its job even after what it names went; the store looks before it refuses.
        try:
            return jobs.insert(session, new)
        except DatasetNotFound as err:
            raise RequestInvalid(violations=violations) from err
    spec = {**new.spec, "dataset": {"name": request.dataset, "version_id": version.id}}
    if start is not None:
        spec |= {"init_from": start.spec, "config": start.config}
        new = replace(new, source_checkpoint_id=start.checkpoint_id)
    return jobs.insert(session, replace(new, dataset_version_id=version.id, spec=spec))


def _new_job(request: JobRequest, sha256: str, config: RecipeConfig) -> NewJob:
    spec: dict[str, Any] = {
        "recipe": request.recipe,
        "preset": request.preset,
        "config": config.model_dump(mode="json"),
        "dataset": {"name": request.dataset},
        "resources": {"class": request.resource_class, "processes": request.processes},
        "init_from": None,
        "max_attempts": request.max_attempts,
    }
    return NewJob(
        project=request.project,
        request_id=request.request_id or new_id(),
        request_sha256=sha256,
        recipe=request.recipe,
        preset=request.preset,
        dataset_version_id="",
        spec=spec,
        queue=queue_of(request),
        model_id=request.model_id,
        priority=request.priority,
        is_preemptible=request.is_preemptible,
        max_attempts=request.max_attempts,
        display_name=request.display_name,
        labels=request.labels,
    )


def _find_dataset(session: Session, request: JobRequest, checked: Checked) -> DatasetVersion:
    key = (request.project, checked.dataset_id or "", request.dataset_version or None)
    # Submissions that share a transaction see one state, so each dataset is read once for all of them.
    known: dict[tuple[str, str, int | None], DatasetVersion] = session.info.setdefault("datasets", {})
    if key not in known:
        known[key] = datasets.get(session, *key)
    return known[key]


def _look_up_dataset(
    session: Session, request: JobRequest, checked: Checked
) -> tuple[DatasetVersion | None, list[Violation]]:
    if checked.dataset_id is None or request.dataset_version < 0:
        return None, []
    try:
        version = _find_dataset(session, request, checked)
    except DatasetNotFound:
        return None, [_unknown_dataset(session, request, checked)]
    return version, _suitability(version, checked.recipe) if checked.recipe is not None else []


def _look_up_start(
    session: Session, request: JobRequest, checked: Checked
) -> tuple[sources.Start | None, list[Violation]]:
    """Return what the job starts from, and what is wrong with it."""
    start = None
    try:
        if checked.start is not None:
            start = sources.find(session, checked.start, project=request.project)
        is_known = start is not None or not request.init_from
        if is_known and checked.config is not None and checked.recipe is not None:
            config = sources.complete(checked.config, start.origin if start else None, checked.recipe)
            start = replace(start, config=config.model_dump(mode="json")) if start else None
    except RequestInvalid as err:
        return None, list(err.violations)
    return start, []


def _named_violations(session: Session, request: JobRequest, checked: Checked) -> list[Violation]:
    return [*_look_up_dataset(session, request, checked)[1], *_look_up_start(session, request, checked)[1]]


def _unknown_dataset(session: Session, request: JobRequest, checked: Checked) -> Violation:
    known = [row.dataset_id for row in datasets.page(session, request.project, page_size=200)]
    wanted = checked.dataset_id or ""
    if wanted in known:
        return Violation("dataset_version", f"dataset {wanted!r} has no version {request.dataset_version}")
    remedy = suggestion(wanted, known) or "import one first (CreateDataset, `trainyard datasets import`)"
    return Violation("dataset", f"project {request.project!r} has no dataset {wanted!r}; {remedy}")


def _suitability(version: DatasetVersion, recipe: Recipe) -> list[Violation]:
    if version.family not in recipe.dataset_families:
        text = f"holds {version.family} data, but {recipe.id} needs {' or '.join(recipe.dataset_families)}"
        return [Violation("dataset", text)]
    if version.family in _CLASS_FAMILIES and not version.classes:
        return [Violation("dataset", "has no classes to learn")]
    if recipe.needs_labels and not version.classes:
        text = f"has no labels, but {recipe.id} learns the class of every image; import one with one folder a class"
        return [Violation("dataset", text)]
    if not any(version.counts.get("train", {}).values()):
        return [Violation("dataset", "has nothing in its split 'train'")]
    return []
