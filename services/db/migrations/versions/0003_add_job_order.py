"""Add what orders, pauses and interrupts jobs: their place in the queue, projects' turns, and counted event lines."""

import sqlalchemy as sa
from alembic import op

from services.db.migrations import online
from services.db.types import UtcTime, epoch

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CHECKS = {
    "ck_jobs_state": (
        "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
        "state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')",
    ),
    "ck_jobs_desired": ("desired IN ('run', 'cancel')", "desired IN ('run', 'cancel', 'pause', 'yield')"),
    "ck_jobs_end": (
        "(state IN ('queued', 'running')) = (end_time IS NULL)",
        "(state IN ('queued', 'running', 'paused')) = (end_time IS NULL)",
    ),
}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("is_preemptible", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("jobs", sa.Column("order_time", UtcTime(), server_default=epoch(), nullable=False))
    op.add_column("attempts", sa.Column("num_lines", sa.Integer(), server_default="0", nullable=False))
    for name, (before, after) in CHECKS.items():
        online.replace_check("jobs", name, before=before, after=after)
    op.create_table(
        "turns",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("claim_time", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("queue", "project", name=op.f("pk_turns")),
    )


def downgrade() -> None:
    op.drop_table("turns")
    # A paused job is unknown to the older code; it waits in the queue instead.
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'paused'")
    op.execute("UPDATE jobs SET desired = 'run' WHERE desired IN ('pause', 'yield')")
    for name, (before, after) in CHECKS.items():
        online.replace_check("jobs", name, before=after, after=before)
    op.drop_column("attempts", "num_lines")
    op.drop_column("jobs", "order_time")
    op.drop_column("jobs", "is_preemptible")
