"""Use cases of deployments. They only store what is wanted; controller, workers and agents make it so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from services.core import names
from services.core.ids import new_id
from services.core.roles import Role
from services.core.states import DeploymentState
from services.db import deployments, models, projects
from services.db.deployments import Deployment, NewDeployment
from services.db.session import Session
from services.db.work import Work
from services.rpc.paging import Page, PageRequest, by_time


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model version by its name; version None is the newest."""

    model_id: str
    version: int | None


class DeploymentManager:
    """Creates, changes, finds and deletes deployments of one kind of serving machine."""

    def __init__(self, work: Work, *, target: str) -> None:
        self._work = work
        self._target = target

    async def create(
        self, project: str, deployment_id: str, *, wanted: Wanted, workers: int, request_id: str
    ) -> Deployment:
        """Store a deployment; the same request_id with the same request returns the one it made first.

        Raises:
            ModelNotFound: the project has no such model version.
            AlreadyExists: the deployment_id is taken.
            IdempotencyConflict: the request_id was used for another request.
        """
        request_id = request_id or new_id()
        sha256 = _sha256(project, deployment_id, wanted.model_id, wanted.version, workers)

        def write(session: Session) -> Deployment:
            version = models.get(session, project, wanted.model_id, wanted.version)
            new = NewDeployment(
                project=project,
                deployment_id=deployment_id,
                request_id=request_id,
                request_sha256=sha256,
                model_version_id=version.id,
                target=self._target,
                workers=workers,
            )
            return deployments.insert(session, new)[0]

        return await self._work.write(write, made=lambda one: names.deployment(one.project, one.deployment_id))

    async def update(self, project: str, deployment_id: str, *, wanted: Wanted | None, workers: int) -> Deployment:
        """Ask for another version or number of workers; None and 0 keep what is.

        Who names a version, even the one that is served, gets an archive for what agents serve now; other numbers of
        workers alone leave the archive as it is.

        Asking for what is changes nothing, unless that failed: then it is tried again.

        Raises:
            DeploymentNotFound: the project has no such deployment.
            ModelNotFound: the project has no such model version.
            PreconditionFailed: it is being deleted.
        """

        def write(session: Session) -> Deployment:
            now = deployments.get(session, project, deployment_id)
            version_id = now.model_version_id
            if wanted is not None:
                version_id = models.get(session, project, wanted.model_id, wanted.version).id
            target = now.archive.target if wanted is None else self._target
            asked = (version_id, workers or now.workers, target)
            is_same = asked == (now.model_version_id, now.workers, now.archive.target)
            if is_same and now.state not in (DeploymentState.FAILED, DeploymentState.DELETING):
                return now
            return deployments.update(
                session,
                project,
                deployment_id,
                model_version_id=version_id,
                target=target,
                workers=workers or now.workers,
            )

        return await self._work.write(write)

    async def get(self, project: str, deployment_id: str) -> Deployment:
        return await self._work.read(lambda session: deployments.get(session, project, deployment_id))

    async def shares_serving_tokens(self, project: str, role: Role) -> bool:
        """Return whether a caller may call replicas without the platform between.

        TorchServe's tokens know no projects: one opens every model it serves. So they are handed out only where
        there is no other project, and to those who may change what is served.
        """
        return role.covers(Role.SUBMITTER) and await self._work.read(lambda session: projects.is_only(session, project))

    async def list(self, project: str, paging: PageRequest) -> Page[Deployment]:
        after = paging.time_key
        rows = await self._work.read(
            lambda session: deployments.page(session, project, page_size=paging.size + 1, after=after)
        )
        return paging.cut(rows, by_time)

    async def delete(self, project: str, deployment_id: str) -> Deployment:
        return await self._work.write(lambda session: deployments.delete(session, project, deployment_id))


def _sha256(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
