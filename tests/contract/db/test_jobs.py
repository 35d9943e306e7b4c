"""Jobs as they are submitted, dispatched, listed and counted, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from services.core.errors import DatasetNotFound, IdempotencyConflict, JobNotFound
from services.core.states import JobState
from services.db import jobs
from services.db.database import Database
from tests.stack.builders import make_dataset, make_job, new_job, queued_job, sha256
from tests.stack.jobs import claimed, current, in_threads, kinds

pytestmark = pytest.mark.usefixtures("invariants_hold_in_the_end")


def test_submitted_job_is_queued_with_its_first_event(database: Database) -> None:
    job = queued_job(database, labels={"team": "a"}, priority=-2)

    found = current(database, job)
    assert found == job
    assert (found.state, found.attempt, found.token, found.checkpoint_step) == (JobState.QUEUED, 0, 0, -1)
    assert (found.labels, found.dataset_id) == ({"team": "a"}, "digits")
    assert kinds(database, job) == ["created"]


def test_same_request_again_finds_the_same_job(database: Database) -> None:
    first = queued_job(database, request_id="r1")

    with database.write() as session:
        again, is_new = jobs.insert(session, new_job(first.dataset_version_id, request_id="r1"))

    assert (again.id, is_new) == (first.id, False)
    assert kinds(database, first) == ["created"]


def test_same_request_id_with_another_body_is_refused(database: Database) -> None:
    first = queued_job(database, request_id="r1")

    with pytest.raises(IdempotencyConflict), database.write() as session:
        jobs.insert(session, new_job(first.dataset_version_id, request_id="r1", request_sha256=sha256("other")))


def test_request_ids_of_two_projects_do_not_meet(database: Database) -> None:
    first = queued_job(database, request_id="r1", project="one")
    second = queued_job(database, request_id="r1", project="two")

    assert first.id != second.id


def test_one_request_sent_by_many_threads_at_once_makes_one_job(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
    new = new_job(dataset.id, request_id="r1")

    found: list[tuple[str, bool]] = []

    def submit() -> None:
        with database.write() as session:
            job, is_new = jobs.insert(session, new)
        found.append((job.id, is_new))

    in_threads(submit, 8)

    assert len({job_id for job_id, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1


@pytest.mark.parametrize("project", ["default", "other"])
def test_job_needs_a_dataset_of_its_own_project(database: Database, project: str) -> None:
    with database.write() as session:
        dataset = make_dataset(session, project="third")

    with pytest.raises(DatasetNotFound), database.write() as session:
        make_job(session, dataset.id, project=project)


def test_job_of_another_project_is_not_found(database: Database) -> None:
    job = queued_job(database)

    with pytest.raises(JobNotFound), database.read() as session:
        jobs.get(session, "other", job.id)


def test_dispatch_sends_each_due_job_once_until_its_message_is_old(database: Database) -> None:
    job = queued_job(database)

    def due(after: float) -> list[tuple[str, str]]:
        with database.write() as session:
            return jobs.dispatch(session, window=8, redispatch_after_seconds=after)

    assert due(3600) == [(job.id, "train.cpu")]
    assert due(3600) == []
    assert due(0) == [(job.id, "train.cpu")]


def test_long_backlog_of_one_queue_neither_floods_nor_hides_another(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        backlog = [make_job(session, dataset.id, queue="train.gpu") for _ in range(12)]
        other = make_job(session, dataset.id, queue="train.cpu")

    with database.write() as session:
        due = jobs.dispatch(session, window=5, redispatch_after_seconds=60)
    with database.write() as session:
        assert jobs.dispatch(session, window=5, redispatch_after_seconds=60) == []
    claimed(database, backlog[0])
    with database.write() as session:
        after_claim = jobs.dispatch(session, window=5, redispatch_after_seconds=60)

    assert due == [(other.id, "train.cpu"), *((job.id, "train.gpu") for job in backlog[:5])]
    assert after_claim == [(backlog[5].id, "train.gpu")]


def test_pages_stay_stable_while_jobs_arrive(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
    made = []
    for _ in range(7):
        with database.write() as session:
            made.append(make_job(session, dataset.id).id)

    seen: list[str] = []
    after = None
    while True:
        with database.read() as session:
            page = jobs.page(session, "default", page_size=3, after=after)
        if not page:
            break
        seen += [job.id for job in page]
        after = (page[-1].create_time, page[-1].id)
        with database.write() as session:
            make_job(session, dataset.id)

    assert seen == made[::-1]


def test_page_filters_by_state_and_recipe(database: Database) -> None:
    queued, running, stopping = (queued_job(database, recipe=f"detection/{name}") for name in ("a", "b", "c"))
    claimed(database, running)
    claimed(database, stopping)
    with database.write() as session:
        jobs.cancel(session, "default", stopping.id, "")

    def found(**filters: Any) -> set[str]:
        with database.read() as session:
            return {job.id for job in jobs.page(session, "default", page_size=10, **filters)}

    assert found(states=[JobState.RUNNING]) == {running.id}
    assert found(states=[JobState.CANCELLING, JobState.QUEUED]) == {stopping.id, queued.id}
    assert found(recipe="detection/b") == {running.id}


def test_figures_count_states_queues_and_leases(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        first = make_job(session, dataset.id)
        make_job(session, dataset.id)
        make_job(session, dataset.id, queue="train.gpu")
    claimed(database, first)

    with database.read() as session:
        figures = jobs.queue_figures(session)

    assert figures.jobs == {JobState.QUEUED: 2, JobState.RUNNING: 1}
    assert (figures.queued, figures.running, figures.running_leases) == (
        {"train.cpu": 1, "train.gpu": 1},
        {"train.cpu": 1},
        1,
    )
    assert all(0 <= age < 60 for age in figures.oldest_age_seconds.values())
