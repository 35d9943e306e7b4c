"""Galleries over gRPC, with embeddings that a serving process computes: who is known, who is not, and what is forgotten."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from trainyard.v1 import gallery_pb2 as pb

from services.backup.check import PlatformCheck, verify_backup
from services.backup.save import Backup
from services.backup.vault import OBJECTS_FILE, Vault, read_objects
from services.core.ids import new_id
from services.core.settings import Settings, Timings
from services.db import audit, deployments, models
from services.db import tables as t
from services.db.models import ModelVersion
from services.storage.local import LocalStore
from tests.builders.face_endpoint import THRESHOLD, FaceEndpoint, face_endpoint, shots
from tests.builders.galleries import deployed, report, trained
from tests.integration.api.conftest import TIMEOUT, Running, serving
from tests.integration.api.failures import refused

CODE = grpc.StatusCode
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


@pytest.fixture
def yard(template: Path, tmp_path: Path) -> Iterator[Yard]:
    # Nothing moves by itself here but where a test says so.
    timings = Timings(reconcile_interval=3600.0)
    with open_yard(template, Settings(state_dir=tmp_path, api_gallery_identities=6, timings=timings)) as yard:
        yield yard


def names(reply: pb.IdentifyResponse) -> list[str]:
    return [match.identity.rpartition("/")[2] for match in reply.matches]


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


def test_landmarks_reach_the_model_at_enrolment_and_again_at_the_next_version(yard: Yard) -> None:
    points = [(10.0, 12.0), (30.0, 12.0), (20.0, 22.0), (12.0, 32.0), (28.5, 32.0)]
    image = pb.FaceImage(content=shots(1)[0], landmarks=[pb.Point(x=x, y=y) for x, y in points])
    yard.create(keep_images=True)

    yard.enrol(1, images=[image])
    first, yard.endpoint.landmarks = yard.endpoint.landmarks, []
    yard.serve(trained(yard.api.database))
    yard.reenrol()

    assert first == yard.endpoint.landmarks == [[list(point) for point in points]]


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


def test_nothing_of_a_deleted_person_is_left(yard: Yard, tmp_path: Path) -> None:
    yard.create(keep_images=True)
    for person in (1, 2):
        yard.enrol(person, display_name=f"Person {person}")
    assert names(yard.identify(1))[0] == "person-1"
    vault = Vault(LocalStore(tmp_path / "vault"))
    before = Backup(yard.api.database, yard.api.store, vault).save().snapshot
    doomed = [key for key in yard.kept() if _owner(yard, key) == "person-1"]

    yard.delete(1)
    after = Backup(yard.api.database, yard.api.store, vault).save().snapshot

    assert len(doomed) == 3
    assert names(yard.identify(1)) == ["person-2"]
    assert not set(doomed) & set(yard.kept())
    assert set(doomed) < _objects(vault, before.id, tmp_path)
    assert not set(doomed) & _objects(vault, after.id, tmp_path)
    assert len([key for key in _objects(vault, after.id, tmp_path) if "/galleries/" in key]) == 3
    for table in ("identities", "embeddings", "identity_images", "outbox"):
        vault.get_file(after, f"{table}.jsonl", tmp_path / table)
        assert "person-1" not in (tmp_path / table).read_text().lower()
        assert "Person 1" not in (tmp_path / table).read_text()
    assert (before.files["embeddings.jsonl"].rows, after.files["embeddings.jsonl"].rows) == (2, 1)
    assert verify_backup(vault).is_sound
    # The dataset of the template has a row alone.
    report = PlatformCheck(yard.api.database, yard.api.store).run()
    assert not [finding for finding in report.findings if finding.kind in ("image", "galleries")]


def _owner(yard: Yard, key: str) -> str:
    with yard.api.database.read() as session:
        query = (
            sa.select(t.identities.c.identity_id)
            .join(t.identity_images, t.identity_images.c.identity_uid == t.identities.c.id)
            .where(t.identity_images.c.key == key)
        )
        return str(session.execute(query).scalar_one())


def _objects(vault: Vault, snapshot_id: str, folder: Path) -> set[str]:
    path = folder / f"objects-{snapshot_id}"
    vault.get_file(vault.open(snapshot_id), OBJECTS_FILE, path)
    return {one.key for one in read_objects(path)}


def test_deleting_a_gallery_takes_everybody(yard: Yard) -> None:
    yard.create(keep_images=True)
    for person in (1, 2):
        yard.enrol(person)

    reply = yard.api.galleries.DeleteGallery(pb.DeleteGalleryRequest(name=STAFF), timeout=TIMEOUT)

    assert reply.identity_count == 2
    assert yard.kept() == []
    assert refused(lambda: yard.identify(1)).code == CODE.NOT_FOUND
    assert refused(yard.get).code == CODE.NOT_FOUND
    assert yard.create().identity_count == 0


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
