"""Galleries over gRPC: who is known, who is not, and what is said of bad requests."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from trainyard.v1 import gallery_pb2 as pb

from services.core.ids import new_id
from services.db import audit, deployments, models
from services.db import tables as t
from tests.builders.face_endpoint import THRESHOLD, shots
from tests.builders.galleries import report, trained
from tests.integration.api.conftest import TIMEOUT, serving
from tests.integration.api.failures import refused
from tests.integration.api.galleries.yard import STAFF, Yard, names

CODE = grpc.StatusCode


def test_the_known_are_named_and_the_unknown_are_not(yard: Yard) -> None:
    made = yard.create()
    for person in range(4):
        yard.enrol(person, display_name=f"Person {person}")

    known, unknown = yard.identify(2), yard.identify(5, top_k=2)

    assert made.model_version == known.model_version == "projects/default/models/faces/versions/1"
    assert (names(known)[0], known.matches[0].display_name) == ("person-2", "Person 2")
    assert (known.is_unknown, known.compared_count, len(known.matches)) == (False, 4, 4)
    assert [match.is_same for match in known.matches] == [True, False, False, False]
    assert known.threshold == THRESHOLD
    similarities = [match.similarity for match in known.matches]
    assert similarities == sorted(similarities, reverse=True)
    assert (unknown.is_unknown, len(unknown.matches)) == (True, 2)
    assert yard.identify(5, threshold=-1.0).is_unknown is False


def test_an_empty_gallery_knows_nobody(yard: Yard) -> None:
    yard.create()

    reply = yard.identify(1)

    assert (reply.is_unknown, reply.compared_count, len(reply.matches)) == (True, 0, 0)


def test_two_pictures_and_a_picture_and_an_identity_are_verified(yard: Yard) -> None:
    yard.create()
    yard.enrol(1)
    one, again, other = (pb.FaceImage(content=shots(person, seed=seed)[0]) for person, seed in ((1, 1), (1, 2), (2, 1)))

    def verify(**fields: Any) -> pb.VerifyResponse:
        return yard.api.galleries.Verify(pb.VerifyRequest(name=STAFF, image=one, **fields), timeout=TIMEOUT)

    same, different, enrolled = (
        verify(other_image=again),
        verify(other_image=other),
        verify(identity_id="person-1"),
    )

    assert (same.is_same, different.is_same, enrolled.is_same) == (True, False, True)
    assert same.distance == pytest.approx(2 - 2 * same.similarity)
    assert verify(other_image=one).similarity == pytest.approx(1.0)
    assert verify(other_image=other, threshold=-1.0).is_same
    assert refused(lambda: verify(identity_id="nobody")).code == CODE.NOT_FOUND
    assert "other_image" in refused(verify).violations


def test_an_enrolment_is_the_mean_of_its_pictures(yard: Yard) -> None:
    yard.create()
    yard.enrol(1)
    single = pb.FaceImage(content=shots(1, 3)[0])

    reply = yard.api.galleries.Verify(pb.VerifyRequest(name=STAFF, image=single, identity_id="person-1"))

    assert THRESHOLD < reply.similarity < 1 - 1e-6


def test_a_request_id_makes_one_gallery_and_one_identity(yard: Yard) -> None:
    gallery_id, identity_id = new_id(), new_id()
    first = yard.create(request_id=gallery_id)
    person = yard.enrol(1, request_id=identity_id)
    asked = yard.endpoint.asked

    assert yard.create(request_id=gallery_id).create_time == first.create_time
    assert yard.enrol(1, request_id=identity_id) == person
    assert yard.endpoint.asked == asked
    for act in (
        lambda: yard.create(request_id=gallery_id, keep_images=True),
        lambda: yard.enrol(2, request_id=identity_id),
    ):
        assert refused(act).reason == "REQUEST_ID_REUSED"
    taken = refused(lambda: yard.enrol(1))
    assert (taken.code, "replace_existing" in taken.message) == (CODE.ALREADY_EXISTS, True)
    assert yard.enrol(1, replace_existing=True).name == person.name


def test_pictures_that_cannot_be_embedded_are_named_and_nothing_is_stored(yard: Yard) -> None:
    yard.create(keep_images=True)
    good, bad = pb.FaceImage(content=shots(1)[0]), pb.FaceImage(content=b"no image")

    alone, among = refused(lambda: yard.enrol(1, images=[bad])), refused(lambda: yard.enrol(1, images=[good, bad, bad]))

    assert alone.code == among.code == CODE.INVALID_ARGUMENT
    assert "send a JPEG" in alone.violations["images[0]"]
    assert set(among.violations) == {"images[1]", "images[2]"}
    assert "image" in refused(lambda: yard.identify(1, image=bad)).violations
    assert yard.get().identity_count == 0
    assert yard.kept() == []


def test_a_full_gallery_says_so(yard: Yard) -> None:
    yard.create(keep_images=True)
    for person in range(6):
        yard.enrol(person)
    stored = yard.kept()

    refusal = refused(lambda: yard.enrol(6))

    assert refusal.code == CODE.RESOURCE_EXHAUSTED
    assert yard.kept() == stored


def test_every_change_is_recorded_with_whom_it_is_about(yard: Yard) -> None:
    yard.create()
    yard.enrol(1)
    yard.delete(1)
    yard.reenrol()
    yard.api.galleries.DeleteGallery(pb.DeleteGalleryRequest(name=STAFF), timeout=TIMEOUT)

    with yard.api.database.read() as session:
        lines = audit.page(session, page_size=5)
    assert [(line.action.rpartition("/")[2], line.resource) for line in reversed(lines)] == [
        ("CreateGallery", STAFF),
        ("EnrolIdentity", f"{STAFF}/identities/person-1"),
        ("DeleteIdentity", f"{STAFF}/identities/person-1"),
        ("ReenrolGallery", STAFF),
        ("DeleteGallery", STAFF),
    ]


def test_a_gallery_of_a_model_that_embeds_nothing_is_refused_with_those_that_do(yard: Yard) -> None:
    yard.serve(trained(yard.api.database, recipe="segmentation/fcn"), "shapes")

    refusal = refused(lambda: yard.create(deployment="projects/default/deployments/shapes"))

    assert refusal.code == CODE.FAILED_PRECONDITION
    assert "deployment 'shapes' serves segmentation/fcn" in refusal.message
    assert "face/siamese or face/triplet" in refusal.message
    assert yard.create().name == STAFF


def test_a_gallery_of_a_recipe_that_this_server_does_not_know_is_made(yard: Yard) -> None:
    yard.serve(trained(yard.api.database, recipe="ours/embedder"), "ours")

    assert yard.create(deployment="projects/default/deployments/ours").name == STAFF


def test_a_taken_name_says_how_to_go_on(yard: Yard) -> None:
    yard.create()

    refusal = refused(yard.create)

    assert refusal.code == CODE.ALREADY_EXISTS
    assert "choose another id, or delete that one first (`trainyard galleries delete staff`)" in refusal.message


def test_a_gallery_without_its_deployment_says_what_to_do(yard: Yard) -> None:
    yard.create()
    with yard.api.database.read() as session:
        yard.serve(models.get(session, "default", "faces", 1), "spare")
    with yard.api.database.write() as session:
        session.execute(sa.delete(t.replicas))
        deployments.delete(session, "default", "faces")
    report(yard.api.database, yard.endpoint.url, "spare")

    refusal = refused(lambda: yard.enrol(1))
    yard.reenrol("projects/default/deployments/spare")
    yard.enrol(1)

    assert refusal.code == CODE.FAILED_PRECONDITION
    assert "--deployment" in refusal.message
    assert names(yard.identify(1)) == ["person-1"]


def test_two_servers_agree_at_once(yard: Yard) -> None:
    yard.create()
    for person in (1, 2):
        yard.enrol(person)
    with serving(yard.api.settings) as (other, _):
        second = Yard(other, yard.endpoint)
        assert names(second.identify(1))[0] == names(yard.identify(1))[0] == "person-1"

        yard.delete(1)
        yard.enrol(3)

        assert names(second.identify(3)) == ["person-3", "person-2"]
        assert names(second.identify(1))[0] != "person-1"


def test_identities_are_listed_page_by_page(yard: Yard) -> None:
    yard.create(keep_images=True)
    for person in range(3):
        yard.enrol(person)

    first = yard.api.galleries.ListIdentities(pb.ListIdentitiesRequest(parent=STAFF, page_size=2), timeout=TIMEOUT)
    request = pb.ListIdentitiesRequest(parent=STAFF, page_size=2, page_token=first.next_page_token)
    rest = yard.api.galleries.ListIdentities(request, timeout=TIMEOUT)
    listed = [*first.identities, *rest.identities]

    assert [one.name.rpartition("/")[2] for one in listed] == ["person-2", "person-1", "person-0"]
    assert {(one.image_count, one.kept_image_count, one.state) for one in listed} == {(3, 3, pb.IDENTITY_STATE_READY)}
    assert rest.next_page_token == ""
    galleries = yard.api.galleries.ListGalleries(pb.ListGalleriesRequest(), timeout=TIMEOUT).galleries
    assert [one.identity_count for one in galleries] == [3]


def test_a_model_that_embeds_nothing_is_named(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.create()
    monkeypatch.setattr(yard.endpoint, "embed", lambda content: [0.0, 0.0])

    refusal = refused(lambda: yard.enrol(1))

    assert refusal.code == CODE.FAILED_PRECONDITION
    assert "embedding" in refusal.message
