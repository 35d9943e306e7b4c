"""Kept images of faces: those without a row go, those with one stay."""

from __future__ import annotations

from datetime import timedelta

from ulid import ULID

from services.controller.effects import Effects
from services.controller.removal import PrefixRemover
from services.controller.sweep import Sweep
from services.core.ids import new_id
from services.db import galleries, identities
from services.db.database import Database
from services.db.galleries import DELETE_IMAGES, Gallery
from services.storage import layout
from services.storage.port import ObjectStore
from tests.builders.galleries import LIMIT, image, make_gallery, new_identity, trained

NOW = timedelta(seconds=-60)
OLD_ID = str(ULID.from_timestamp(1_700_000_000.0)).lower()


def enrolled(database: Database, store: ObjectStore, gallery: Gallery, identity_id: str, uid: str) -> str:
    """Enrol somebody with one kept image, and return its key."""
    kept = image(gallery, uid)
    store.put(kept.key, b"face")
    with database.write() as session:
        new = new_identity(identity_id, id=uid, images=[kept])
        identities.enrol(session, gallery, new, replace_existing=False, limit=LIMIT)
    return kept.key


def keys(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list("")}


def test_images_of_a_deleted_person_go_though_the_api_server_died(database: Database, store: ObjectStore) -> None:
    gallery = make_gallery(database, trained(database))
    gone, kept = (enrolled(database, store, gallery, name, new_id()) for name in ("ada", "eve"))
    with database.write() as session:
        identities.delete(session, "default", "staff", "ada")
    assert keys(store) == {gone, kept}

    Effects(database, {DELETE_IMAGES: PrefixRemover(store, "images")}).tick()

    assert keys(store) == {kept}
    with database.write() as session:
        galleries.delete(session, "default", "staff")
    Effects(database, {DELETE_IMAGES: PrefixRemover(store, "images")}).tick()
    assert keys(store) == set()


def test_only_old_images_without_a_row_are_swept(database: Database, store: ObjectStore) -> None:
    gallery = make_gallery(database, trained(database))
    kept = enrolled(database, store, gallery, "ada", OLD_ID)
    orphan = layout.identity_image("default", gallery.id, OLD_ID, new_id())
    under_way = layout.identity_image("default", gallery.id, new_id(), new_id())
    for key in (orphan, under_way):
        store.put(key, b"face")

    Sweep(database, store).tick()
    assert keys(store) == {kept, under_way}

    Sweep(database, store, age=NOW).tick()
    assert keys(store) == {kept}
