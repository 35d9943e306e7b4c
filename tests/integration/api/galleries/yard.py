"""An API server with galleries, and a serving process that embeds faces."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.v1 import gallery_pb2 as pb

from services.core.settings import Settings
from services.db import deployments
from services.db.models import ModelVersion
from tests.builders.face_endpoint import FaceEndpoint, face_endpoint, shots
from tests.builders.galleries import deployed, report, trained
from tests.integration.api.conftest import TIMEOUT, Running, serving

STAFF = "projects/default/galleries/staff"
FACES = "projects/default/deployments/faces"


@dataclass
class Yard:
    """An API server, a serving process it can reach, and one deployed face model."""

    api: Running
    endpoint: FaceEndpoint

    def serve(self, version: ModelVersion, deployment_id: str = "faces") -> None:
        """Make a deployment want a version, and its serving process answer with it."""
        with self.api.database.write() as session:
            found = {one.deployment_id for one in deployments.page(session, "default", page_size=10)}
        if deployment_id in found:
            self.want(version, deployment_id)
        else:
            deployed(self.api.database, version, deployment_id)
        report(self.api.database, self.endpoint.url, deployment_id)
        self.endpoint.version = version.version

    def want(self, version: ModelVersion, deployment_id: str = "faces") -> None:
        """Make a deployment want a version that nobody serves yet."""
        with self.api.database.write() as session:
            deployments.update(
                session, "default", deployment_id, model_version_id=version.id, target="cpu-t1", workers=1
            )

    def create(self, **fields: Any) -> pb.Gallery:
        values = {"gallery_id": "staff", "deployment": FACES, **fields}
        return self.api.galleries.CreateGallery(pb.CreateGalleryRequest(**values), timeout=TIMEOUT).gallery

    def enrol(self, person: int, **fields: Any) -> pb.Identity:
        values: dict[str, Any] = {"parent": STAFF, "identity_id": f"person-{person}"}
        if "images" not in fields:
            values["images"] = [pb.FaceImage(content=shot) for shot in shots(person, 3)]
        request = pb.EnrolIdentityRequest(**{**values, **fields})
        return self.api.galleries.EnrolIdentity(request, timeout=TIMEOUT).identity

    def identify(self, person: int, **fields: Any) -> pb.IdentifyResponse:
        (shot,) = shots(person, seed=9)
        request = pb.IdentifyRequest(**{"name": STAFF, "image": pb.FaceImage(content=shot), **fields})
        return self.api.galleries.Identify(request, timeout=TIMEOUT)

    def get(self, name: str = STAFF) -> pb.Gallery:
        return self.api.galleries.GetGallery(pb.GetGalleryRequest(name=name), timeout=TIMEOUT).gallery

    def reenrol(self, deployment: str = "") -> list[pb.ReenrolGalleryResponse]:
        request = pb.ReenrolGalleryRequest(name=STAFF, deployment=deployment)
        return list(self.api.galleries.ReenrolGallery(request, timeout=TIMEOUT))

    def delete(self, person: int) -> None:
        request = pb.DeleteIdentityRequest(name=f"{STAFF}/identities/person-{person}")
        self.api.galleries.DeleteIdentity(request, timeout=TIMEOUT)

    def kept(self) -> list[str]:
        """Return the keys of kept images in the store."""
        return [info.key for info in self.api.store.list("projects/default/galleries/")]


@contextmanager
def open_yard(template: Path, settings: Settings) -> Iterator[Yard]:
    shutil.copy(template, settings.state_dir / "metadata.sqlite3")
    with serving(settings) as (api, _), face_endpoint() as endpoint:
        yard = Yard(api, endpoint)
        yard.serve(trained(api.database))
        yield yard


def names(reply: pb.IdentifyResponse) -> list[str]:
    return [match.identity.rpartition("/")[2] for match in reply.matches]
