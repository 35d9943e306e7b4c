"""Galleries over gRPC when their model gets a new version."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
from trainyard.v1 import gallery_pb2 as pb

from services.core.settings import Settings, Timings
from tests.builders.face_endpoint import shots
from tests.builders.galleries import trained
from tests.integration.api.conftest import TIMEOUT, serving
from tests.integration.api.failures import refused
from tests.integration.api.galleries.yard import STAFF, Yard, names, open_yard

CODE = grpc.StatusCode


def test_landmarks_reach_the_model_at_enrolment_and_again_at_the_next_version(yard: Yard) -> None:
    points = [(10.0, 12.0), (30.0, 12.0), (20.0, 22.0), (12.0, 32.0), (28.5, 32.0)]
    image = pb.FaceImage(content=shots(1)[0], landmarks=[pb.Point(x=x, y=y) for x, y in points])
    yard.create(keep_images=True)

    yard.enrol(1, images=[image])
    first, yard.endpoint.landmarks = yard.endpoint.landmarks, []
    yard.serve(trained(yard.api.database))
    yard.reenrol()

    assert first == yard.endpoint.landmarks == [[list(point) for point in points]]


def test_versions_are_never_compared(yard: Yard) -> None:
    yard.create()
    yard.enrol(1)
    yard.serve(trained(yard.api.database))

    refusals = [
        refused(lambda: yard.identify(1)),
        refused(lambda: yard.enrol(2)),
        refused(
            lambda: yard.api.galleries.Verify(
                pb.VerifyRequest(name=STAFF, image=pb.FaceImage(content=shots(1)[0]), identity_id="person-1")
            )
        ),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.reason) == (CODE.FAILED_PRECONDITION, "MODEL_VERSIONS_DIFFER")
        assert "faces/1" in refusal.message
        assert "faces/2" in refusal.message
        assert "trainyard galleries reenrol staff" in refusal.message
        assert "everybody enrolled must show up again" in refusal.message
    assert yard.get().identity_count == 1


def test_kept_images_are_embedded_again_and_others_are_asked_for(yard: Yard) -> None:
    yard.create(keep_images=True)
    for person in range(4):
        yard.enrol(person)
    yard.serve(trained(yard.api.database), "next")

    steps = yard.reenrol("projects/default/deployments/next")

    moved = steps[-1].gallery
    assert (steps[0].done_count, steps[-1].done_count, steps[-1].total_count) == (0, 4, 4)
    assert moved.model_version == "projects/default/models/faces/versions/2"
    assert (moved.deployment, moved.needs_images_count) == ("projects/default/deployments/next", 0)
    assert [names(yard.identify(person))[0] for person in range(4)] == [f"person-{person}" for person in range(4)]


def test_with_kept_images_a_gallery_follows_its_deployment_unless_it_is_pinned(template: Path, tmp_path: Path) -> None:
    pinned = "projects/default/galleries/pinned"
    settings = Settings(state_dir=tmp_path, timings=Timings(reconcile_interval=0.05))
    with open_yard(template, settings) as yard, serving(settings):
        yard.create(keep_images=True)
        yard.create(gallery_id="pinned", keep_images=True, is_pinned=True)
        for person in range(3):
            yard.enrol(person)
        second = trained(yard.api.database)
        yard.want(second)
        waiting = [yard.get(name) for name in (STAFF, pinned)]
        yard.endpoint.version = 2
        refusals = [refused(lambda name=name: yard.identify(1, name=name)) for name in (STAFF, pinned)]  # type: ignore[misc]

        yard.serve(second)
        end = time.monotonic() + TIMEOUT
        while yard.get().model_version.endswith("/1") and time.monotonic() < end:
            time.sleep(0.02)
        moved, stayed = yard.get(), yard.get(pinned)
        found = [names(yard.identify(person))[0] for person in range(3)]

    assert [one.state for one in waiting] == [pb.GALLERY_STATE_MOVING, pb.GALLERY_STATE_STALE]
    assert ["by itself" in one.message for one in refusals] == [True, False]
    assert "galleries reenrol pinned" in refusals[1].message
    assert (moved.model_version, moved.state) == (
        "projects/default/models/faces/versions/2",
        pb.GALLERY_STATE_READY,
    )
    assert (moved.identity_count, moved.needs_images_count) == (3, 0)
    assert found == [f"person-{person}" for person in range(3)]
    assert (stayed.model_version, stayed.state, stayed.is_pinned) == (
        "projects/default/models/faces/versions/1",
        pb.GALLERY_STATE_STALE,
        True,
    )


def test_without_kept_images_people_show_up_again(yard: Yard) -> None:
    yard.create()
    yard.enrol(1)
    yard.enrol(2)
    yard.serve(trained(yard.api.database))

    (*_, last) = yard.reenrol()
    lost = yard.identify(1)
    yard.enrol(1, replace_existing=True)
    found = yard.identify(1)
    request = pb.ListIdentitiesRequest(parent=STAFF, state=pb.IDENTITY_STATE_NEEDS_IMAGES)
    waiting = yard.api.galleries.ListIdentities(request, timeout=TIMEOUT).identities

    assert last.gallery.needs_images_count == 2
    assert (lost.is_unknown, lost.compared_count, lost.needs_images_count) == (True, 0, 2)
    assert (names(found), found.needs_images_count) == (["person-1"], 1)
    assert [one.name for one in waiting] == [f"{STAFF}/identities/person-2"]
    verify = pb.VerifyRequest(name=STAFF, image=pb.FaceImage(content=shots(2)[0]), identity_id="person-2")
    refusal = refused(lambda: yard.api.galleries.Verify(verify))
    assert refusal.code == CODE.FAILED_PRECONDITION
    assert "enrol it again" in refusal.message


def test_an_interrupted_move_goes_on_where_it_was(yard: Yard) -> None:
    yard.create(keep_images=True)
    for person in range(3):
        yard.enrol(person)
    lost = next(key for key in yard.kept())
    content = yard.api.store.get(lost)
    yard.serve(trained(yard.api.database))
    # A picture that is damaged stands for one that the new model refuses.
    yard.api.store.put(lost, b"damaged")
    (*_, first) = yard.reenrol()
    asked = yard.endpoint.asked
    yard.api.store.put(lost, content)

    (*_, second) = yard.reenrol()

    assert (first.done_count, first.total_count, first.gallery.needs_images_count) == (2, 3, 1)
    assert (second.done_count, second.gallery.needs_images_count) == (3, 0)
    assert yard.endpoint.asked == asked + 1
    assert len(names(yard.identify(0))) == 3
