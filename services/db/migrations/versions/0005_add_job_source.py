"""Add the checkpoint that a job starts from, so that it stays stored as long as the job may need it."""

import sqlalchemy as sa
from alembic import op

from services.db.migrations import online
from services.db.types import short_id

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_live_source"
IS_LIVE = "state IN ('queued', 'running', 'paused')"


def upgrade() -> None:
    # A crash while the index is built leaves the column: the revision must be safe to begin again.
    if "source_checkpoint_id" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}:
        op.add_column("jobs", sa.Column("source_checkpoint_id", short_id()))
    online.create_index(
        INDEX, "jobs", ["source_checkpoint_id"], where=f"{IS_LIVE} AND source_checkpoint_id IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_index(INDEX, "jobs")
    op.drop_column("jobs", "source_checkpoint_id")
