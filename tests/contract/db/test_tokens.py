"""Projects, tokens, the audit log and quotas, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from services.core.errors import (
    AlreadyExists,
    JobNotRunnable,
    ProjectNotFound,
    QuotaExceeded,
    RequestInvalid,
    TokenNotFound,
)
from services.core.roles import Role
from services.db import audit, jobs, projects, quotas, tokens
from services.db.audit import AuditLine
from services.db.database import Database
from services.db.tokens import NewToken
from tests.stack.builders import make_dataset, make_job, new_checkpoint, queued_job, sha256


def new_token(**changes: Any) -> NewToken:
    values: dict[str, Any] = {"id": "t1", "project": "red", "role": Role.SUBMITTER, "sha256": sha256("secret")}
    return NewToken(**{**values, **changes})


def test_a_project_is_made_once(database: Database) -> None:
    with database.write() as session:
        assert projects.insert(session, "red").max_queued_jobs is None
        assert projects.ensure(session, "red") is False
        with pytest.raises(AlreadyExists):
            projects.insert(session, "red")

    with database.read() as session:
        assert [one.id for one in projects.list_all(session)] == ["red"]
        assert projects.is_only(session, "red")
        assert not projects.is_only(session, "blue")


@pytest.mark.parametrize("project", ["", "Red", "red_", "-red", "a--b", "../x", "a" * 64])
def test_a_project_whose_names_could_be_misread_is_refused(database: Database, project: str) -> None:
    with database.write() as session, pytest.raises(RequestInvalid):
        projects.ensure(session, project)


def test_a_token_is_of_a_project_that_exists(database: Database) -> None:
    with database.write() as session, pytest.raises(ProjectNotFound):
        tokens.insert(session, new_token())


def test_a_token_is_found_with_what_a_check_needs(database: Database) -> None:
    with database.write() as session:
        projects.ensure(session, "red")
        tokens.insert(session, new_token(lifetime_seconds=60))
        tokens.insert(session, new_token(id="t2", lifetime_seconds=-1))
        tokens.insert(session, new_token(id="t3", role=Role.ADMIN))

    with database.read() as session:
        live, expired, endless = (tokens.find(session, one) for one in ("t1", "t2", "t3"))
        assert tokens.find(session, "t4") is None

    assert live is not None
    assert (live.project, live.role, live.sha256, live.is_revoked) == ("red", Role.SUBMITTER, sha256("secret"), False)
    assert 50 < (live.seconds_left or 0) <= 60
    assert expired is not None
    assert (expired.seconds_left or 0) < 0
    assert endless is not None
    assert endless.seconds_left is None


def test_a_revoked_token_stays_revoked_from_the_first_time_on(database: Database) -> None:
    with database.write() as session:
        projects.ensure(session, "red")
        tokens.insert(session, new_token())
    with database.write() as session:
        first = tokens.revoke(session, "t1")
    with database.write() as session:
        second = tokens.revoke(session, "t1")
        with pytest.raises(TokenNotFound):
            tokens.revoke(session, "t2")
        found = tokens.find(session, "t1")

    assert first.revoke_time == second.revoke_time is not None
    assert found is not None
    assert found.is_revoked


def test_an_operators_token_is_replaced_by_another_secret_and_revived_by_no_old_one(database: Database) -> None:
    chosen = new_token(id="bootstrap", role=Role.ADMIN)
    for _ in range(2):
        with database.write() as session:
            tokens.put(session, chosen)
    with database.write() as session:
        tokens.revoke(session, "bootstrap")
        assert tokens.put(session, chosen).revoke_time is not None

    with database.write() as session:
        rotated = tokens.put(session, new_token(id="bootstrap", role=Role.ADMIN, sha256=sha256("other")))
        found = tokens.find(session, "bootstrap")

    assert rotated.revoke_time is None
    assert found is not None
    assert found.sha256 == sha256("other")


def test_lines_of_the_audit_log_are_paged_newest_first(database: Database) -> None:
    with database.write() as session:
        audit.write(session, [AuditLine(action=f"a{i}", project="red", token_id="t1") for i in range(5)])
        audit.write(session, [AuditLine(action="b", project="blue")])

    with database.read() as session:
        first = audit.page(session, project="red", page_size=3)
        rest = audit.page(session, project="red", page_size=3, after=(first[-1].create_time, first[-1].id))
        blue = audit.page(session, project="blue", page_size=3)
        by_token = audit.page(session, token_id="t1", page_size=9)

    assert sorted(line.action for line in [*first, *rest]) == ["a0", "a1", "a2", "a3", "a4"]
    assert [line.action for line in blue] == ["b"]
    assert len(by_token) == 5


@pytest.mark.parametrize("change", ["UPDATE audit_lines SET outcome = 'OK'", "DELETE FROM audit_lines"])
def test_the_database_itself_changes_no_line(database: Database, change: str) -> None:
    with database.write() as session:
        audit.write(session, [AuditLine(action="a", outcome="PERMISSION_DENIED")])

    with pytest.raises(sa.exc.DBAPIError, match="append-only"), database.write() as session:
        session.execute(sa.text(change))

    with database.read() as session:
        assert [line.outcome for line in audit.page(session, page_size=9)] == ["PERMISSION_DENIED"]


def limited(database: Database, project: str = "default", **limits: int | None) -> None:
    with database.write() as session:
        projects.ensure(session, project)
        projects.set_quotas(session, project, limits)


def test_quotas_change_one_by_one(database: Database) -> None:
    limited(database, max_queued_jobs=3, max_stored_bytes=5)
    limited(database, max_queued_jobs=None)

    with database.write() as session:
        found = projects.get(session, "default")
        with pytest.raises(RequestInvalid):
            projects.set_quotas(session, "default", {"max_running_jobs": -1})
        with pytest.raises(ProjectNotFound):
            projects.set_quotas(session, "nobody", {"max_running_jobs": 1})

    assert (found.max_running_jobs, found.max_queued_jobs, found.max_stored_bytes) == (None, None, 5)


def test_as_many_jobs_wait_as_the_quota_says(database: Database) -> None:
    limited(database, max_queued_jobs=2)
    with database.write() as session:
        dataset = make_dataset(session)
        other = make_dataset(session, project="other")

    def submit() -> str:
        try:
            with database.write() as session:
                make_job(session, dataset.id)
                quotas.check_queued(session, "default")
        except QuotaExceeded as err:
            return str(err)
        return "stored"

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: submit(), range(8)))
    with database.write() as session:
        make_job(session, other.id, project="other")
        quotas.check_queued(session, "other")

    assert answers.count("stored") == 2
    assert all(answer == "stored" or "has 2 queued jobs" in answer for answer in answers)


def test_as_many_jobs_run_as_the_quota_says(database: Database) -> None:
    limited(database, max_running_jobs=2)
    limited(database, "other")
    with database.write() as session:
        dataset, foreign = make_dataset(session), make_dataset(session, project="other")
    with database.write() as session:
        waiting = [make_job(session, dataset.id) for _ in range(6)]
        make_job(session, foreign.id, project="other")

    def claim(_: int) -> str | None:
        with database.write() as session:
            lease = jobs.claim_next(session, ["train.cpu"], worker_id="w", ttl_seconds=60)
        return None if lease is None else lease.project

    with ThreadPoolExecutor(8) as threads:
        claimed = [project for project in threads.map(claim, range(8)) if project is not None]
    with database.write() as session, pytest.raises(JobNotRunnable):
        jobs.claim(session, waiting[-1].id, worker_id="w", ttl_seconds=60)
    with database.write() as session:
        rung = jobs.dispatch(session, window=10, redispatch_after_seconds=0)

    assert sorted(claimed) == ["default", "default", "other"]
    assert rung == []


def test_a_job_that_ends_makes_room_for_the_next(database: Database) -> None:
    limited(database, max_running_jobs=1)
    first = queued_job(database)
    with database.write() as session:
        second = make_job(session, first.dataset_version_id)
        jobs.claim(session, first.id, worker_id="w", ttl_seconds=0.0)
    with database.write() as session:
        assert jobs.claim_next(session, ["train.cpu"], worker_id="w", ttl_seconds=60) is None
        jobs.cancel(session, "default", first.id, "")
        jobs.reap(session, limit=10)

    with database.write() as session:
        lease = jobs.claim_next(session, ["train.cpu"], worker_id="w", ttl_seconds=60)

    assert lease is not None
    assert lease.job_id == second.id


def test_bytes_of_everything_a_project_stores_are_counted(database: Database) -> None:
    job = queued_job(database)
    queued_job(database, project="other")
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="w", ttl_seconds=60)
        jobs.commit_checkpoint(session, lease, new_checkpoint(5, size_bytes=1000))
        stored = quotas.stored_bytes(session, "default")
    limited(database, max_stored_bytes=stored)

    with database.write() as session:
        quotas.check_stored(session, "default", added=10)
        with pytest.raises(QuotaExceeded, match=r"stores 2\.2 KiB of 2\.2 KiB; delete datasets, models or"):
            quotas.check_stored(session, "default")
        quotas.check_stored(session, "other")
        assert quotas.job_counts(session, "default") == (1, 0)

    # What the builders' dataset and the checkpoint weigh.
    assert stored == 1234 + 1000
