"""A gallery over a real TorchServe with a face network: enrolled, asked, refused after a new version, and moved to it."""

from __future__ import annotations

import grpc
import pytest
from trainyard.v1 import gallery_pb2 as pb

from services.core.states import DeploymentState
from tests.builders.face_bundle import THRESHOLD, write_face_bundle
from tests.builders.face_endpoint import shots
from tests.integration.api.conftest import TIMEOUT, serving
from tests.integration.api.failures import refused
from tests.integration.serving.yard import BuiltModel, ServingYard

STAFF = "projects/default/galleries/staff"


@pytest.fixture
def yard(tmp_path_factory: pytest.TempPathFactory) -> ServingYard:
    return ServingYard(tmp_path_factory.mktemp("yard"))


def publish(yard: ServingYard, seed: int) -> BuiltModel:
    return yard.publish_bundle(write_face_bundle(yard.root / f"faces-{seed}", seed=seed), model_id="faces")


def test_faces_are_known_through_torchserve_version_after_version(yard: ServingYard) -> None:
    first, second = publish(yard, 0), publish(yard, 1)
    yard.deploy("faces", first)
    with yard.agent(), serving(yard.settings) as (api, _):
        yard.wait_state("faces", DeploymentState.READY)
        deployment = "projects/default/deployments/faces"
        api.galleries.CreateGallery(
            # Pinned, so that the refusal in between is sure to be seen.
            pb.CreateGalleryRequest(gallery_id="staff", deployment=deployment, keep_images=True, is_pinned=True),
            timeout=TIMEOUT,
        )
        for person in range(4):
            request = pb.EnrolIdentityRequest(parent=STAFF, identity_id=f"person-{person}", images=[face(person)])
            api.galleries.EnrolIdentity(request, timeout=TIMEOUT)

        def identify(person: int) -> pb.IdentifyResponse:
            return api.galleries.Identify(pb.IdentifyRequest(name=STAFF, image=face(person)), timeout=TIMEOUT)

        before = [identify(person) for person in range(5)]
        yard.replace("faces", second)
        yard.wait_state("faces", DeploymentState.READY)
        refusal = refused(lambda: identify(0))
        list(api.galleries.ReenrolGallery(pb.ReenrolGalleryRequest(name=STAFF), timeout=TIMEOUT))
        after = [identify(person) for person in range(5)]

    for answers, version in ((before, 1), (after, 2)):
        assert [one.matches[0].identity.rpartition("/")[2] for one in answers[:4]] == [f"person-{n}" for n in range(4)]
        assert [one.is_unknown for one in answers] == [False] * 4 + [True]
        assert {one.model_version for one in answers} == {f"projects/default/models/faces/versions/{version}"}
        assert {one.threshold for one in answers} == {THRESHOLD}
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_VERSIONS_DIFFER")


def face(person: int) -> pb.FaceImage:
    return pb.FaceImage(content=shots(person)[0])
