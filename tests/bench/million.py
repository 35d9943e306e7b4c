"""The queue's hot statements over a million jobs in PostgreSQL: how long they take, and by which plans."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.core.errors import JobNotRunnable, LeaseHeld
from services.core.states import JobState
from services.db import datasets, jobs, projects, workers
from services.db.database import Database
from services.db.session import Session
from services.db.waiting import has_unsent_jobs
from tests.bench.figures import percentile
from tests.stack.builders import new_dataset
from tests.stack.postgres import postgres_process

JOBS = 1_000_000
PROJECTS = 50
WAITING = 200_000
RUNNING = 400
REPEATS = 200
BAR_SECONDS = 0.020
QUEUE = "train.cpu"
BIG = "project-0"
"""The project that owns half of everything."""

Act = Callable[[Session], object]


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: one transaction."""

    act: Act
    is_write: bool
    before: Act | None = None
    """Done each time before it, in a transaction that is not timed."""


# States in the order of creation: what is old has ended, what is new waits. A few rare ones lie scattered.
FILL = sa.text(f"""
    INSERT INTO jobs (id, project, request_id, request_sha256, recipe, preset, display_name, labels, dataset_version_id,
        dataset_id, model_id, spec, queue, priority, state, desired, attempt, max_attempts, uncharged_restarts, no_progress,
        token, lease_owner, lease_expire_time, checkpoint_step, checkpoint_count, progress_step, progress_total, event_seq,
        create_time, start_time, end_time, update_time, order_time)
    SELECT made.id, made.project, made.id, '', made.recipe, 'full', 'job ' || n, '{{"team": "vision"}}', 'v-' || made.project,
        'digits', 'digits', '{{"config": {{"limits": {{"max_steps": 1000}}}}}}', made.queue, made.priority, made.state, 'run',
        1, 3, 0, 0, 1, CASE WHEN made.state = 'running' THEN 'worker-' || n END,
        CASE WHEN made.state = 'running' THEN clock_timestamp() + interval '1 hour' END, -1, 0, 0, 1000, 1, made.at,
        CASE WHEN made.state IN ('queued', 'paused') THEN NULL ELSE made.at END,
        CASE WHEN made.state IN ('queued', 'running', 'paused') THEN NULL ELSE made.at END, made.at,
        made.at + make_interval(secs => made.priority * 600)
    FROM (
        SELECT n, lpad(n::text, 26, '0') AS id, clock_timestamp() - make_interval(secs => ({JOBS} - n) / 10.0) AS at,
            CASE WHEN n % 2 = 0 THEN '{BIG}' ELSE 'project-' || (n::bigint * 7919 % {PROJECTS}) END AS project,
            (ARRAY['detection/yolo_v1', 'detection/ssd', 'gan/dcgan', 'rare/recipe'])[
                CASE WHEN n % 50000 = 3 THEN 4 ELSE 1 + n % 3 END] AS recipe,
            CASE WHEN n % 10 < 9 THEN 'train.cpu' ELSE 'train.gpu' END AS queue,
            (ARRAY[-10, 0, 0, 0, 0, 0, 5, 10])[1 + n % 8] AS priority,
            CASE WHEN n % 100000 = 2 THEN 'paused'
                 WHEN n % 100000 = 4 THEN 'cancelled'
                 WHEN n > {JOBS - WAITING} THEN 'queued'
                 WHEN n > {JOBS - WAITING - RUNNING} THEN 'running'
                 WHEN n % 20 = 0 THEN 'failed'
                 ELSE 'succeeded' END AS state
        FROM generate_series(1, {JOBS}) AS n
    ) AS made
""")


def run(directory: Path) -> dict[str, Any]:
    with postgres_process(directory) as server:
        database = Database(server.url)
        database.migrate()
        begin = time.perf_counter()
        _fill(database)
        filled = time.perf_counter() - begin
        figures = {name: _measure(database, case) for name, case in _cases(database).items()}
        database.dispose()
    slow = [name for name, figure in figures.items() if figure["p99_ms"] > 1e3 * BAR_SECONDS]
    return {
        "million": {"jobs": JOBS, "fill_seconds": round(filled, 1), "over_the_bar": slow, "statements": figures},
    }


def _fill(database: Database) -> None:
    with database.write() as session:
        session.execute(sa.text("SET LOCAL statement_timeout = 0"))
        for number in range(PROJECTS):
            _make_project(session, f"project-{number}")
        session.execute(FILL)
        attempts = "INSERT INTO attempts (job_id, token, attempt, worker_id, state, start_time) "
        session.execute(
            sa.text(f"{attempts} SELECT id, 1, 1, lease_owner, 'running', start_time FROM jobs WHERE state = 'running'")
        )
        for number in range(RUNNING):
            info = workers.WorkerInfo(id=f"worker-{number}", host="h", boot_id="b", pid=1, slots=1, queues=[QUEUE])
            workers.heartbeat(session, info)
    with database._engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("VACUUM ANALYZE"))


def _make_project(session: Session, project: str) -> None:
    projects.ensure(session, project)
    projects.set_quotas(session, project, {"max_running_jobs": 10_000})
    datasets.insert(session, new_dataset(id=f"v-{project}", project=project))


def _cases(database: Database) -> dict[str, Case]:
    rng = random.Random(0)
    numbers = itertools.count()
    deep = _somewhere_deep(database)

    def page(project: str = BIG, **filters: Any) -> Case:
        return Case(lambda session: jobs.page(session, project, page_size=51, **filters), False)

    def claim_next(session: Session) -> object:
        lease = jobs.claim_next(session, [QUEUE], worker_id=f"claimer-{next(numbers)}", ttl_seconds=3600)
        assert lease is not None
        return lease

    def dispatch(session: Session) -> object:
        return jobs.dispatch(session, window=2 * RUNNING + 8, redispatch_after_seconds=3600)

    def claim_by_id(session: Session) -> object:
        job_id = f"{JOBS - rng.randrange(1, WAITING):026d}"
        with suppress(JobNotRunnable, LeaseHeld):  # a rare one that does not wait, or one claimed before
            jobs.claim(session, job_id, worker_id="claimer", ttl_seconds=3600)
        return None

    return {
        "list": page(),
        "list_deep": page(after=deep),
        "list_small_project": page("project-7"),
        "list_queued": page(states=[JobState.QUEUED]),
        "list_running": page(states=[JobState.RUNNING]),
        "list_cancelling": page(states=[JobState.CANCELLING]),
        "list_failed": page(states=[JobState.FAILED]),
        "list_rare_state": page(states=[JobState.PAUSED]),
        "list_states": page(states=[JobState.PAUSED, JobState.CANCELLED, JobState.RUNNING, JobState.FAILED]),
        "list_recipe": page(recipe="gan/dcgan"),
        "list_rare_recipe": page(recipe="rare/recipe"),
        "list_recipe_and_states": page(recipe="rare/recipe", states=[JobState.FAILED, JobState.PAUSED]),
        "list_recipe_and_state_deep": page(recipe="gan/dcgan", states=[JobState.SUCCEEDED], after=deep),
        "claim_next": Case(claim_next, True),
        "claim_by_id": Case(claim_by_id, True),
        "dispatch_after_claim": Case(dispatch, True, before=claim_next),
        "dispatch": Case(dispatch, True),
        "has_unsent": Case(has_unsent_jobs, False),
        "preempt": Case(lambda session: jobs.preempt(session, min_run_seconds=600), True),
        "reap": Case(lambda session: jobs.reap(session, limit=100), True),
    }


def _somewhere_deep(database: Database) -> Any:
    with database.read() as session:
        query = sa.text("SELECT create_time, id FROM jobs WHERE project = :project ORDER BY id OFFSET 200000 LIMIT 1")
        row = session.execute(query, {"project": BIG}).one()
    return row.create_time, row.id


def _measure(database: Database, case: Case) -> dict[str, Any]:
    opened = database.write if case.is_write else database.read
    seconds = []
    for _ in range(REPEATS):
        if case.before is not None:
            with database.write() as session:
                case.before(session)
        begin = time.perf_counter()
        with opened() as session:
            case.act(session)
        seconds.append(time.perf_counter() - begin)
    return {
        "p50_ms": round(1e3 * percentile(seconds, 0.5), 2),
        "p99_ms": round(1e3 * percentile(seconds, 0.99), 2),
        "plan": _plans(database, case.act),
    }


def _plans(database: Database, act: Act) -> list[str]:
    """Return how the server runs the reads of an act and looks up the rows of its writes, one line a scan."""
    with _explaining(database) as found, database._engine.connect() as connection:
        session = Session(connection, is_read=False)
        act(session)
        connection.rollback()
    return found


@contextmanager
def _explaining(database: Database) -> Iterator[list[str]]:
    """Ask for the plan of every statement on the jobs, before it runs."""
    found: list[str] = []
    is_asking = False

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        nonlocal is_asking
        if is_asking or "jobs" not in statement or statement.lstrip().startswith("EXPLAIN"):
            return
        is_asking = True
        try:
            # ANALYZE carries the statement out, so it is taken back.
            connection.exec_driver_sql("SAVEPOINT explain")
            rows = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON, ANALYZE) {statement}", parameters).scalar_one()
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT explain")
        finally:
            is_asking = False
        top = (rows if isinstance(rows, list) else json.loads(rows))[0]
        found.extend(line for line in _scans(top["Plan"]) if line not in found)

    sa.event.listen(database._engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        sa.event.remove(database._engine, "before_cursor_execute", explain)


def _scans(node: dict[str, Any]) -> Iterator[str]:
    if "Scan" in node["Node Type"] and node.get("Relation Name", node.get("Index Name")):
        where = node.get("Index Name") or node["Relation Name"]
        yield f"{node['Node Type']} {where}: {node['Actual Rows'] * node['Actual Loops']:g} rows"
    for child in node.get("Plans", ()):
        yield from _scans(child)
