"""Matrices in memory: never older than the database, read no more than needed, and dropped in time."""

from __future__ import annotations

import pytest

from services.db import galleries, identities
from services.db.database import Database
from services.db.galleries import Gallery
from services.galleries.cache import IDLE_SECONDS, MatrixCache
from services.galleries.matrix import Matrix
from tests.builders.galleries import enrol, make_gallery, trained, vector


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gallery(database: Database) -> Gallery:
    made = make_gallery(database, trained(database))
    for name in ("ada", "eve"):
        enrol(database, made, name)
    return made


def current(database: Database, cache: MatrixCache, gallery_id: str = "staff") -> Matrix:
    with database.snapshot() as session:
        return cache.current(session, galleries.get(session, "default", gallery_id))


def people(matrix: Matrix) -> set[str]:
    return {identity_id for identity_id, _ in matrix.labels}


def test_what_did_not_change_is_read_once(database: Database, gallery: Gallery) -> None:
    cache = MatrixCache()

    first = current(database, cache)

    assert current(database, cache) is first
    assert people(first) == {"ada", "eve"}


@pytest.mark.parametrize("change", ["enrolled", "replaced", "deleted", "deleted and enrolled", "moved"])
def test_a_change_is_seen_by_the_next_comparison(database: Database, gallery: Gallery, change: str) -> None:
    cache = MatrixCache()
    current(database, cache)

    if "deleted" in change:
        with database.write() as session:
            identities.delete(session, "default", "staff", "ada")
    if "enrolled" in change:
        enrol(database, gallery, "bob", vector=vector(0.0, 1.0))
    if change == "replaced":
        enrol(database, gallery, "ada", vector=vector(0.0, 1.0), replace_existing=True)
    if change == "moved":
        version = trained(database)
        with database.write() as session:
            identities.move(session, gallery, model_version_id=version.id, deployment_id="faces", after="")

    seen, anew = current(database, cache), current(database, MatrixCache())
    assert dict(zip(seen.labels, seen.vectors.tolist(), strict=True)) == dict(
        zip(anew.labels, anew.vectors.tolist(), strict=True)
    )
    assert (seen.revision, seen.model_version_id) == (anew.revision, anew.model_version_id)
    assert seen.needs_images == anew.needs_images == (2 if change == "moved" else 0)


def test_what_changed_elsewhere_or_is_not_used_leaves_memory(database: Database, gallery: Gallery) -> None:
    clock = Clock()
    cache = MatrixCache(clock=clock)

    def tend() -> list[str]:
        with database.read() as session:
            cache.keep(galleries.revisions(session, cache.uids()))
        return cache.uids()

    current(database, cache)
    assert tend() == [gallery.id]
    with database.write() as session:
        identities.delete(session, "default", "staff", "ada")
    assert tend() == []

    current(database, cache)
    clock.now += IDLE_SECONDS + 1
    assert tend() == []

    current(database, cache)
    with database.write() as session:
        galleries.delete(session, "default", "staff")
    assert tend() == []


def test_the_gallery_used_longest_ago_makes_room(database: Database, gallery: Gallery) -> None:
    version = trained(database)
    others = [make_gallery(database, version, gallery_id=name) for name in ("b", "c")]
    for other in others:
        enrol(database, other)
    cache = MatrixCache(max_bytes=24)

    for name in ("staff", "b", "staff", "c"):
        current(database, cache, name)

    assert cache.uids() == [gallery.id, others[1].id]
