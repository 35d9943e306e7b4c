"""Datasets: versions, requests that come again, and deletion beside the jobs that use them, on both databases."""

from __future__ import annotations

import pytest

from services.core.errors import DatasetNotFound, IdempotencyConflict, PreconditionFailed
from services.db import datasets, jobs
from services.db.database import Database
from tests.stack.builders import make_dataset, make_job, new_dataset, new_job, queued_job, sha256


def test_dataset_versions_count_from_one_and_replay(database: Database) -> None:
    new = new_dataset(request_id="r1")
    with database.write() as session:
        first, is_new = datasets.insert(session, new)
        second = make_dataset(session)
    with database.write() as session:
        again, is_again_new = datasets.insert(session, new)

    assert (first.version, second.version) == (1, 2)
    assert (is_new, is_again_new, again) == (True, False, first)
    with database.read() as session:
        assert datasets.get(session, "default", "digits") == second
        assert datasets.get(session, "default", "digits", 1) == first
        assert datasets.list_versions(session, "default", "digits") == [second, first]


@pytest.mark.parametrize("dataset_id", ["digits", "other"])
def test_dataset_request_id_with_another_body_is_refused(database: Database, dataset_id: str) -> None:
    with database.write() as session:
        datasets.insert(session, new_dataset(request_id="r1"))

    changed = new_dataset(request_id="r1", request_sha256=sha256("x"), dataset_id=dataset_id)
    with pytest.raises(IdempotencyConflict), database.write() as session:
        datasets.insert(session, changed)

    with database.write() as session:
        assert make_dataset(session, dataset_id="digits").version == 2


def test_dataset_page_shows_the_newest_version_of_each(database: Database) -> None:
    with database.write() as session:
        made = [make_dataset(session, dataset_id=name) for name in ("a", "b", "a")]

    with database.read() as session:
        first = datasets.page(session, "default", page_size=1)
        rest = datasets.page(session, "default", page_size=5, after=(first[0].create_time, first[0].id))

    assert [first[0].id, *(version.id for version in rest)] == [made[2].id, made[1].id]


def test_dataset_in_use_is_not_deleted(database: Database) -> None:
    job = queued_job(database)
    with pytest.raises(PreconditionFailed, match="cancel"), database.write() as session:
        datasets.delete(session, "default", "digits")

    with database.write() as session:
        jobs.cancel(session, "default", job.id, "")
        datasets.delete(session, "default", "digits")

    with pytest.raises(DatasetNotFound), database.read() as session:
        datasets.get(session, "default", "digits")
    with pytest.raises(DatasetNotFound), database.write() as session:
        make_job(session, job.dataset_version_id)
    with database.read() as session:
        assert datasets.get_by_id(session, job.dataset_version_id).id == job.dataset_version_id


def test_the_first_of_many_jobs_that_use_a_dataset_are_named(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        made = [make_job(session, dataset.id).id for _ in range(5)]

    named = rf"used by jobs {made[0]}, {made[1]}, {made[2]} and 2 more, which have"
    with pytest.raises(PreconditionFailed, match=named), database.write() as session:
        datasets.delete(session, "default", "digits")


def test_the_request_of_a_deleted_dataset_makes_it_anew(database: Database) -> None:
    with database.write() as session:
        first, _ = datasets.insert(session, new_dataset(request_id="r1"))
        datasets.delete(session, "default", "digits")
        assert not datasets.has_request(session, "default", "r1")

    with database.write() as session:
        second, is_new = datasets.insert(session, new_dataset(request_id="r1"))

    assert is_new
    assert second.id != first.id
    with database.read() as session:
        assert datasets.get(session, "default", "digits").id == second.id


def test_deleted_dataset_is_purged_once(database: Database) -> None:
    with database.write() as session:
        version = make_dataset(session)
        datasets.delete(session, "default", "digits")

    with database.write() as session:
        assert datasets.due_for_purge(session, limit=5) == [version]
        datasets.mark_purged(session, version.id)
        assert datasets.due_for_purge(session, limit=5) == []


def test_weights_that_a_job_starts_from_are_not_deleted(database: Database) -> None:
    with database.write() as session:
        weights = make_dataset(session, dataset_id="weights")
        assert datasets.hold(session, "default", "weights") == weights
    job = queued_job(database, spec={"init_from": {"kind": "weights", "id": weights.id}})

    with pytest.raises(PreconditionFailed, match=f"used by job {job.id}, which"), database.write() as session:
        datasets.delete(session, "default", "weights")

    with database.write() as session:
        jobs.cancel(session, "default", job.id, "")
        datasets.delete(session, "default", "weights")
    with pytest.raises(DatasetNotFound), database.write() as session:
        datasets.hold(session, "default", "weights")


def test_deleting_a_dataset_and_submitting_to_it_never_both_succeed(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
    outcomes = set()
    with database.write() as session:
        jobs.insert(session, new_job(dataset.id))
        outcomes.add("submitted")
    try:
        with database.write() as session:
            datasets.delete(session, "default", "digits")
            outcomes.add("deleted")
    except PreconditionFailed:
        pass

    assert outcomes == {"submitted"}
