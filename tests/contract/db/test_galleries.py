"""Galleries, identities and their embeddings, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from services.core.errors import (
    AlreadyExists,
    GalleryNotFound,
    IdempotencyConflict,
    IdentityNotFound,
    LimitExceeded,
    PreconditionFailed,
    QuotaExceeded,
    VersionsDiffer,
)
from services.core.ids import new_id
from services.core.states import GalleryState
from services.db import deployments, galleries, identities, models, outbox, projects, quotas, references
from services.db import tables as t
from services.db.database import Database
from services.db.galleries import Counts, Gallery
from services.db.models import ModelVersion
from tests.builders.galleries import (
    LIMIT,
    deployed,
    enrol,
    make_gallery,
    new_gallery,
    new_identity,
    report,
    trained,
    vector,
)
from tests.stack.builders import sha256


@pytest.fixture
def gallery(database: Database) -> Gallery:
    return make_gallery(database, trained(database))


def test_a_model_version_that_a_gallery_compares_by_is_not_deleted(database: Database, gallery: Gallery) -> None:
    with database.read() as session:
        version = models.get_by_id(session, gallery.model_version_id)

    with pytest.raises(PreconditionFailed, match=f"gallery '{gallery.gallery_id}'"), database.write() as session:
        models.delete(session, version.project, version.model_id, version.version)


def counts(database: Database, gallery: Gallery) -> Counts:
    with database.read() as session:
        return galleries.counts(session, [current(database, gallery)])[gallery.id]


def current(database: Database, gallery: Gallery) -> Gallery:
    with database.read() as session:
        return galleries.get(session, gallery.project, gallery.gallery_id)


def compared(database: Database, gallery: Gallery, *, after_revision: int = 0) -> dict[str, bytes]:
    with database.read() as session:
        rows = identities.vectors(session, current(database, gallery), after_revision=after_revision)
    return {row.identity_id: row.vector for row in rows}


def delete(database: Database, identity_id: str) -> None:
    with database.write() as session:
        identities.delete(session, "default", "staff", identity_id)


def remaining(database: Database) -> dict[str, int]:
    tables = (t.galleries, t.identities, t.embeddings, t.identity_images)
    with database.read() as session:
        return {
            table.name: session.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in tables
        }


def to_remove(database: Database) -> list[str]:
    """Return the prefixes of objects whose removal was asked for."""
    with database.write() as session:
        found = outbox.take(session, limit=50, retry_after_seconds=60)
    return [item.payload["prefix"] for item in found if item.kind == galleries.DELETE_IMAGES]


def test_a_gallery_is_bound_to_one_model_version_and_replayed(database: Database) -> None:
    version = trained(database)
    new = new_gallery(version, request_id="r1")
    with database.write() as session:
        first, is_new = galleries.insert(session, new)
    with database.write() as session:
        again, is_again_new = galleries.insert(session, new)

    assert (is_new, is_again_new, again) == (True, False, first)
    assert (first.model_version_id, first.model_id, first.version) == (version.id, "faces", 1)
    with pytest.raises(IdempotencyConflict), database.write() as session:
        galleries.insert(session, new_gallery(version, request_id="r1", request_sha256=sha256("x"), gallery_id="b"))
    with pytest.raises(AlreadyExists), database.write() as session:
        galleries.insert(session, new_gallery(version))
    with pytest.raises(GalleryNotFound), database.read() as session:
        galleries.get(session, "other", "staff")


def test_galleries_page_newest_first_with_their_counts(database: Database) -> None:
    version = trained(database)
    made = [make_gallery(database, version, gallery_id=name) for name in ("a", "b", "c")]
    enrol(database, made[1])

    with database.read() as session:
        first = galleries.page(session, "default", page_size=2)
        rest = galleries.page(session, "default", page_size=2, after=(first[-1].create_time, first[-1].id))
        found = galleries.counts(session, made)

    assert [one.gallery_id for one in [*first, *rest]] == ["c", "b", "a"]
    assert [found[one.id] for one in made] == [Counts(0, 0), Counts(1, 0), Counts(0, 0)]


def test_an_enrolment_is_stored_once_and_moves_the_revision(database: Database, gallery: Gallery) -> None:
    new = new_identity(request_id="r1", vector=vector(0.6, 0.8))
    with database.write() as session:
        first, is_new = identities.enrol(session, gallery, new, replace_existing=False, limit=LIMIT)
    with database.write() as session:
        again, is_again_new = identities.enrol(session, gallery, new, replace_existing=False, limit=LIMIT)

    assert (is_new, is_again_new, again) == (True, False, first)
    assert (first.display_name, first.image_count, first.kept_image_count, first.is_ready) == ("Ada", 2, 0, True)
    assert current(database, gallery).revision == gallery.revision + 1
    assert compared(database, gallery) == {"ada": vector(0.6, 0.8)}
    changed = new_identity("eve", request_id="r1", request_sha256=sha256("x"))
    with pytest.raises(IdempotencyConflict), database.write() as session:
        identities.enrol(session, gallery, changed, replace_existing=False, limit=LIMIT)


def test_somebody_enrolled_is_replaced_only_on_purpose_and_then_whole(database: Database, gallery: Gallery) -> None:
    first = enrol(database, gallery, contents=[b"old", b"older"])

    with pytest.raises(AlreadyExists, match="replace_existing"):
        enrol(database, gallery)
    second = enrol(database, gallery, vector=vector(0.0, 1.0), contents=[b"new"], replace_existing=True)

    assert first.id != second.id
    assert second.kept_image_count == 1
    assert compared(database, gallery) == {"ada": vector(0.0, 1.0)}
    assert remaining(database) == {"galleries": 1, "identities": 1, "embeddings": 1, "identity_images": 1}
    assert to_remove(database) == [f"projects/default/galleries/{gallery.id}/{first.id}/"]


def test_a_full_gallery_takes_nobody_but_replacements(database: Database, gallery: Gallery) -> None:
    enrol(database, gallery, "ada")

    with pytest.raises(LimitExceeded, match="1 identities"), database.write() as session:
        identities.enrol(session, gallery, new_identity("eve"), replace_existing=False, limit=1)
    with database.write() as session:
        identities.enrol(session, gallery, new_identity("ada"), replace_existing=True, limit=1)

    assert counts(database, gallery).total == 1


def test_kept_images_count_against_the_quota_of_the_project(database: Database, gallery: Gallery) -> None:
    with database.write() as session:
        projects.ensure(session, "default")
        before = quotas.stored_bytes(session, "default")
        projects.set_quotas(session, "default", {"max_stored_bytes": before + 10})

    enrol(database, gallery, "ada", contents=[b"12345"])
    with pytest.raises(QuotaExceeded):
        enrol(database, gallery, "eve", contents=[b"123456"])

    with database.read() as session:
        assert quotas.stored_bytes(session, "default") == before + 5
    assert set(compared(database, gallery)) == {"ada"}


def test_what_was_embedded_for_another_version_is_not_stored(database: Database, gallery: Gallery) -> None:
    version = trained(database)
    with database.write() as session:
        identities.move(session, gallery, model_version_id=version.id, deployment_id="faces", after="")

    with pytest.raises(VersionsDiffer):
        enrol(database, gallery)

    assert remaining(database)["identities"] == 0


def test_deleting_a_person_leaves_nothing_of_them(database: Database, gallery: Gallery) -> None:
    ada = enrol(database, gallery, "ada", contents=[b"one", b"two"])
    enrol(database, gallery, "eve", contents=[b"three"])
    before = current(database, gallery).revision

    delete(database, "ada")

    assert current(database, gallery).revision == before + 1
    assert set(compared(database, gallery)) == {"eve"}
    assert remaining(database) == {"galleries": 1, "identities": 1, "embeddings": 1, "identity_images": 1}
    assert to_remove(database) == [f"projects/default/galleries/{gallery.id}/{ada.id}/"]
    for act in (identities.get, identities.vector):
        with pytest.raises(IdentityNotFound), database.read() as session:
            act(session, gallery, "ada")
    with pytest.raises(IdentityNotFound):
        delete(database, "ada")


def test_deleting_a_gallery_leaves_nothing_of_anybody(database: Database, gallery: Gallery) -> None:
    for name in ("ada", "eve"):
        enrol(database, gallery, name, contents=[b"face"])

    with database.write() as session:
        _, count = galleries.delete(session, "default", "staff")

    assert count == 2
    assert set(remaining(database).values()) == {0}
    assert to_remove(database) == [f"projects/default/galleries/{gallery.id}/"]
    with pytest.raises(GalleryNotFound):
        enrol(database, gallery)
    with database.snapshot() as session:
        assert not [one for one in references.required(session) if one.kind == "image"]


def test_only_what_changed_after_a_revision_is_read(database: Database, gallery: Gallery) -> None:
    enrol(database, gallery, "ada")
    seen = current(database, gallery).revision
    enrol(database, gallery, "eve", vector=vector(0.0, 1.0))

    assert compared(database, gallery, after_revision=seen) == {"eve": vector(0.0, 1.0)}
    with database.read() as session:
        assert galleries.revisions(session, [gallery.id, "gone"]) == {gallery.id: seen + 1}


def test_identities_page_newest_first_and_by_state(database: Database, gallery: Gallery) -> None:
    for name in ("ada", "bob", "eve"):
        enrol(database, gallery, name, contents=[b"face"] if name == "bob" else [])
    version = trained(database)
    with database.read() as session:
        (uid,) = identities.unembedded(session, gallery, version.id, after="", limit=5)
    with database.write() as session:
        identities.add_vectors(session, gallery, version.id, {uid: vector(1.0, 0.0)})
        identities.move(session, gallery, model_version_id=version.id, deployment_id="faces", after="")

    def page(**changes: Any) -> list[str]:
        with database.read() as session:
            found = identities.page(session, current(database, gallery), **{"page_size": 5, **changes})
        return [one.identity_id for one in found]

    with database.read() as session:
        newest = identities.page(session, gallery, page_size=1)[0]
    assert page() == ["eve", "bob", "ada"]
    assert page(after=(newest.create_time, newest.id)) == ["bob", "ada"]
    assert page(is_ready=True) == ["bob"]
    assert page(is_ready=False) == ["eve", "ada"]


def test_a_gallery_moves_only_once_everybody_with_images_is_embedded(database: Database, gallery: Gallery) -> None:
    ada = enrol(database, gallery, "ada", contents=[b"one", b"two"])
    enrol(database, gallery, "eve")
    version = trained(database)

    def move() -> bool:
        with database.write() as session:
            return identities.move(session, gallery, model_version_id=version.id, deployment_id="next", after="")

    assert not move()
    with database.read() as session:
        due = identities.unembedded(session, gallery, version.id, after="", limit=5)
        assert identities.progress(session, gallery, version.id) == (0, 1)
    assert {uid: [one.size_bytes for one in images] for uid, images in due.items()} == {ada.id: [3, 3]}
    with database.write() as session:
        identities.add_vectors(session, gallery, version.id, {ada.id: vector(0.0, 1.0), new_id(): vector(1.0, 0.0)})
    assert compared(database, gallery) == {"ada": vector(1.0, 0.0), "eve": vector(1.0, 0.0)}
    assert move()

    moved = current(database, gallery)
    assert (moved.model_version_id, moved.deployment_id) == (version.id, "next")
    assert moved.revision > gallery.revision
    assert compared(database, gallery) == {"ada": vector(0.0, 1.0)}
    assert counts(database, gallery) == Counts(2, 1)
    with database.read() as session:
        assert identities.vector(session, moved, "eve") is None
        assert identities.progress(session, moved, version.id) == (1, 1)
    # Ada's old embedding is gone; Eve's stays for the way back, unread until then.
    assert remaining(database)["embeddings"] == 2


def test_on_the_way_back_nobody_needs_images(database: Database, gallery: Gallery) -> None:
    enrol(database, gallery, "eve")
    version = trained(database)
    for wanted in (version.id, gallery.model_version_id):
        with database.write() as session:
            now = galleries.get(session, "default", "staff")
            assert identities.move(session, now, model_version_id=wanted, deployment_id="faces", after="")

    assert compared(database, gallery) == {"eve": vector(1.0, 0.0)}
    assert counts(database, gallery) == Counts(1, 0)


def test_a_move_gives_way_to_one_that_ended_meanwhile(database: Database, gallery: Gallery) -> None:
    version = trained(database)

    def move(model_version_id: str, deployment_id: str) -> bool:
        with database.write() as session:
            return identities.move(
                session, gallery, model_version_id=model_version_id, deployment_id=deployment_id, after=""
            )

    assert move(version.id, "next")
    assert move(version.id, "next")
    with pytest.raises(VersionsDiffer, match="elsewhere"):
        move(gallery.model_version_id, "faces")
    assert current(database, gallery).deployment_id == "next"


def test_a_gallery_with_images_is_due_while_its_deployment_serves_another_version(database: Database) -> None:
    first, second = trained(database), trained(database)
    deployed(database, first)
    made = {
        name: make_gallery(database, first, gallery_id=name, **changes)
        for name, changes in {"kept": {}, "bare": {"keep_images": False}, "pinned": {"is_pinned": True}}.items()
    }

    def due() -> list[str]:
        with database.read() as session:
            return [one.gallery_id for one in galleries.due(session)]

    def states() -> list[GalleryState]:
        return [current(database, one).state for one in made.values()]

    def want(version: ModelVersion) -> None:
        with database.write() as session:
            deployments.update(session, "default", "faces", model_version_id=version.id, target="cpu-t1", workers=1)

    report(database, "http://127.0.0.1:1")
    assert (due(), states()) == ([], [GalleryState.READY] * 3)
    want(second)
    # The version before is still served.
    assert (due(), states()) == ([], [GalleryState.MOVING, GalleryState.STALE, GalleryState.STALE])
    report(database, "http://127.0.0.1:1")
    assert due() == ["kept"]
    with database.read() as session:
        assert galleries.due(session, alive_seconds=0) == []
    want(first)
    assert due() == []
    report(database, "http://127.0.0.1:1")
    assert (due(), states()) == ([], [GalleryState.READY] * 3)
    with database.write() as session:
        deployments.delete(session, "default", "faces")
    assert (due(), states()) == ([], [GalleryState.STALE] * 3)


def test_a_pinned_gallery_moves_only_where_somebody_asks(database: Database, gallery: Gallery) -> None:
    version = trained(database)

    def pin(is_pinned: bool) -> None:
        with database.write() as session:
            galleries.pin(session, gallery.project, gallery.gallery_id, is_pinned=is_pinned)

    def move(*, is_by_itself: bool) -> bool:
        with database.write() as session:
            to = {"model_version_id": version.id, "deployment_id": "faces"}
            return identities.move(session, gallery, **to, after="", is_by_itself=is_by_itself)

    pin(True)
    pinned = current(database, gallery)
    with pytest.raises(VersionsDiffer, match="pinned"):
        move(is_by_itself=True)
    assert (pinned.is_pinned, pinned.revision) == (True, gallery.revision)
    assert current(database, gallery).model_version_id == gallery.model_version_id
    assert move(is_by_itself=False)
    assert current(database, gallery).is_pinned
    pin(False)
    assert move(is_by_itself=True)
    with pytest.raises(GalleryNotFound), database.write() as session:
        galleries.pin(session, gallery.project, "nobody", is_pinned=True)


def test_a_vector_added_late_is_seen_by_its_revision(database: Database, gallery: Gallery) -> None:
    version = trained(database)
    ada = enrol(database, gallery, "ada", contents=[b"one"])
    with database.write() as session:
        assert identities.move(session, gallery, model_version_id=version.id, deployment_id="faces", after=ada.id)
    seen = current(database, gallery).revision

    with database.write() as session:
        identities.add_vectors(session, gallery, version.id, {ada.id: vector(0.0, 1.0)})

    assert current(database, gallery).revision == seen + 1
    assert compared(database, gallery, after_revision=seen) == {"ada": vector(0.0, 1.0)}
