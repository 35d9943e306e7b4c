"""Galleries over gRPC: of deleted people nothing is left."""

from __future__ import annotations

from pathlib import Path

import grpc
import sqlalchemy as sa
from trainyard.v1 import gallery_pb2 as pb

from services.backup.check import PlatformCheck, verify_backup
from services.backup.save import Backup
from services.backup.vault import OBJECTS_FILE, Vault, read_objects
from services.db import tables as t
from services.storage.local import LocalStore
from tests.integration.api.conftest import TIMEOUT
from tests.integration.api.failures import refused
from tests.integration.api.galleries.yard import STAFF, Yard, names

CODE = grpc.StatusCode


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
