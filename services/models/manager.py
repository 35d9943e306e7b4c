"""Use cases of model versions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from services.core import names
from services.core.errors import IdempotencyConflict, ModelNotFound, RequestInvalid, Violation
from services.core.ids import new_id
from services.core.states import ArchiveState
from services.db import archives, checkpoints, jobs, models
from services.db.models import ModelVersion, NewModelVersion
from services.db.session import Session
from services.db.work import Work
from services.rpc.paging import Page, PageRequest, by_time
from services.storage.manifest import Manifest, read_manifest
from services.storage.port import ObjectStore

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """The ids in a checkpoint's name."""

    project: str
    job_id: str
    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class VersionDetails:
    """A model version with what its bundle holds; None while it is not packaged, with why if that failed."""

    version: ModelVersion
    manifest: Manifest | None
    failure: str | None = None


class ModelManager:
    """Creates and finds model versions."""

    def __init__(self, work: Work, store: ObjectStore, *, target: str) -> None:
        self._work = work
        self._store = store
        self._target = target

    async def create(self, source: CheckpointName, *, model_id: str | None, request_id: str) -> ModelVersion:
        """Store the next version of a model, to be packaged from a checkpoint by the build of its first archive.

        Raises:
            CheckpointNotFound: there is no such checkpoint any more.
            IdempotencyConflict: the request_id was used for another checkpoint or model.
        """
        version_id = _id_of_request(source.project, request_id) if request_id else new_id()

        def write(session: Session) -> ModelVersion:
            job = jobs.get(session, source.project, source.job_id)
            wanted_model = model_id or job.model_id
            if (found := _find(session, version_id)) is not None:
                if (found.model_id, found.checkpoint_id) != (wanted_model, source.checkpoint_id):
                    raise IdempotencyConflict
                return found
            checkpoint = checkpoints.hold(session, source.job_id, source.checkpoint_id)
            new = NewModelVersion(
                id=version_id,
                checkpoint_id=checkpoint.id,
                config=job.spec["config"],
                metrics={},
                bundle_prefix="",
                bundle_sha256="",
                size_bytes=0,
            )
            version = models.insert(
                session, new, project=source.project, model_id=wanted_model, recipe=job.recipe, job_id=job.id
            )
            archives.ensure(session, version.id, self._target)
            return version

        return await self._work.write(
            write, made=lambda version: names.model_version(version.project, version.model_id, version.version)
        )

    async def get(self, project: str, model_id: str, version: int | None) -> VersionDetails:
        """Return a version, the newest where none is named."""

        def read(session: Session) -> VersionDetails:
            row = models.get(session, project, model_id, version)
            if not row.bundle_sha256:
                archive = archives.find(session, row.id, self._target)
                is_failed = archive is not None and archive.state is ArchiveState.FAILED
                return VersionDetails(row, None, failure=archive.message if archive and is_failed else None)
            return VersionDetails(row, read_manifest(self._store, row.bundle_prefix, row.bundle_sha256))

        return await self._work.read(read)

    async def delete(self, project: str, model_id: str, version: int | None) -> None:
        """Forget a version that nothing uses any more; the controller removes its objects.

        Raises:
            RequestInvalid: no version is named.
            ModelNotFound: there is none.
            PreconditionFailed: something uses it.
        """
        if version is None:
            text = "name the version to delete by its number: which one is the newest may change"
            raise RequestInvalid(violations=[Violation("name", text)])
        await self._work.write(lambda session: models.delete(session, project, model_id, version))

    async def list(self, project: str, model_id: str | None, paging: PageRequest) -> Page[ModelVersion]:
        after = paging.time_key
        rows = await self._work.read(
            lambda session: models.page(session, project, page_size=paging.size + 1, after=after, model_id=model_id)
        )
        return paging.cut(rows, by_time)


def _find(session: Session, version_id: str) -> ModelVersion | None:
    try:
        return models.get_by_id(session, version_id)
    except ModelNotFound:
        return None


def _id_of_request(project: str, request_id: str) -> str:
    """Return an id that only this request has: the primary key then makes the call idempotent."""
    number = int.from_bytes(hashlib.sha256(f"{project}/{request_id}".encode()).digest()[:16], "big")
    return "0" + "".join(_ID_ALPHABET[(number >> shift) & 31] for shift in range(0, 125, 5))
