"""What keeps a model version, and what goes with one, on both databases."""

from __future__ import annotations

import pytest

from services.core.errors import LeaseLost, ModelNotFound, PreconditionFailed
from services.db import archives, deployments, jobs, models
from services.db.database import Database
from tests.builders.serving_rows import built, claimed, current, deployed, trained
from tests.stack.builders import queued_job, sha256


def delete_model(database: Database, version: models.ModelVersion) -> None:
    with database.write() as session:
        models.delete(session, "default", version.model_id, version.version)


def test_a_deleted_model_version_is_gone_with_its_archives_and_its_number(database: Database) -> None:
    first, second = trained(database), trained(database)
    lease = claimed(database, second.id)
    with database.write() as session:
        archives.finish_ready(session, lease, key="k", sha256=sha256("k"), size_bytes=1, form="aoti", parity={})

    delete_model(database, second)
    with pytest.raises(ModelNotFound):
        delete_model(database, second)

    with database.read() as session:
        assert models.get(session, "default", first.model_id) == first
        assert archives.find(session, second.id, "cpu-t1") is None
    delete_model(database, first)
    with database.read() as session:
        assert models.list_ids(session, "default", limit=5) == []
    assert trained(database).version == 3


def test_a_build_whose_model_version_was_deleted_writes_nothing(database: Database) -> None:
    version = trained(database)
    lease = claimed(database, version.id)

    delete_model(database, version)

    with pytest.raises(LeaseLost), database.write() as session:
        archives.finish_ready(session, lease, key="k", sha256=sha256("k"), size_bytes=1, form="aoti", parity={})


def test_a_model_version_that_is_served_or_that_a_job_starts_from_is_not_deleted(database: Database) -> None:
    old, new = trained(database), trained(database)
    built(database, deployed(database, old.id).archive.id)
    with pytest.raises(PreconditionFailed, match="'reader' serves it"):
        delete_model(database, old)

    with database.write() as session:
        update = {"target": "cpu-t1", "workers": 1, "model_version_id": new.id}
        wanted = deployments.update(session, "default", "reader", **update)
    # The old one answers until the new one is built.
    for version in (old, new):
        with pytest.raises(PreconditionFailed, match="'reader' serves it"):
            delete_model(database, version)
    built(database, wanted.archive.id, name="new")
    job = queued_job(database, spec={"init_from": {"kind": "model", "id": old.id}})
    with pytest.raises(PreconditionFailed, match=f"job {job.id} starts from it"):
        delete_model(database, old)

    with database.write() as session:
        jobs.cancel(session, "default", job.id, "")
    delete_model(database, old)
    assert current(database).model_version_id == new.id
    with database.read() as session:
        assert [one.archive_key for one in deployments.desired(session)] == ["new"]

    with pytest.raises(PreconditionFailed, match="'reader' serves it"):
        delete_model(database, new)
    with database.write() as session:
        deployments.delete(session, "default", "reader")
    delete_model(database, new)
