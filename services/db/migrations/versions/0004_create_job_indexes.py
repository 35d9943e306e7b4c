"""Create the indexes of the fair queue and of filtered lists, while jobs are written. Safe to begin again."""

import sqlalchemy as sa
from alembic import op

from services.db.migrations import online

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CHECKS = ("ck_jobs_state", "ck_jobs_desired", "ck_jobs_end")
INDEXES: dict[str, tuple[list[str], str | None]] = {
    "ix_jobs_waiting": (["queue", "project", "order_time"], "state = 'queued'"),
    "ix_jobs_busy": (["queue", "project"], "state = 'running'"),
    "ix_jobs_live_project": (["project", "state"], "state IN ('queued', 'running', 'paused')"),
    "ix_jobs_project_state_create_time_id": (["project", "state", "create_time", "id"], None),
    "ix_jobs_project_recipe_state_create_time_id": (["project", "recipe", "state", "create_time", "id"], None),
}
BATCH = 5000


def upgrade() -> None:
    online.validate_checks("jobs", CHECKS)
    _order_waiting_jobs()
    for name, (columns, condition) in INDEXES.items():
        online.create_index(name, "jobs", columns, where=condition)
    online.drop_index("ix_jobs_queued", "jobs")
    online.drop_index("ix_jobs_live_dataset", "jobs")
    online.create_index(
        "ix_jobs_live_dataset", "jobs", ["dataset_version_id"], where="state IN ('queued', 'running', 'paused')"
    )


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, "jobs")
    op.drop_index("ix_jobs_live_dataset", "jobs")
    for name, columns, condition in (
        ("ix_jobs_live_dataset", ["dataset_version_id"], "state IN ('queued', 'running')"),
        ("ix_jobs_queued", ["queue", "priority", "create_time"], "state = 'queued'"),
    ):
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(condition), sqlite_where=sa.text(condition))


def _order_waiting_jobs() -> None:
    """Give jobs from before the column their place: ten minutes a step of priority after their creation."""
    place = {
        "postgresql": "create_time + make_interval(secs => priority * 600)",
        "sqlite": "create_time + priority * 600.0",
    }[op.get_bind().dialect.name]
    nowhere = {"postgresql": "'epoch'::timestamptz", "sqlite": "0.0"}[op.get_bind().dialect.name]
    online.update_in_batches(
        f"UPDATE jobs SET order_time = {place} WHERE id IN (SELECT id FROM jobs "  # noqa: S608 - constants above
        f"WHERE order_time = {nowhere} AND state IN ('queued', 'running') LIMIT {BATCH})"
    )
