"""Create projects with their quotas, API tokens and the audit log."""

import sqlalchemy as sa
from alembic import op

from services.db import append_only
from services.db.types import CleanText, UtcTime, short_id

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("max_running_jobs", sa.Integer(), nullable=True),
        sa.Column("max_queued_jobs", sa.Integer(), nullable=True),
        sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("note", CleanText(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("expire_time", UtcTime(), nullable=True),
        sa.Column("revoke_time", UtcTime(), nullable=True),
        sa.CheckConstraint("role IN ('viewer', 'submitter', 'admin')", name=op.f("ck_tokens_role")),
        sa.ForeignKeyConstraint(["project"], ["projects.id"], name=op.f("fk_tokens_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_project_create_time_id"), "tokens", ["project", "create_time", "id"])
    op.create_table(
        "audit_lines",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("peer", CleanText(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource", CleanText(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("request_id", CleanText(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_lines")),
    )
    op.create_index(op.f("ix_audit_lines_create_time_id"), "audit_lines", ["create_time", "id"])
    op.create_index(op.f("ix_audit_lines_project_create_time_id"), "audit_lines", ["project", "create_time", "id"])
    for statement in append_only.creations("audit_lines", op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    for statement in append_only.removals("audit_lines", op.get_bind().dialect.name):
        op.execute(statement)
    op.drop_table("audit_lines")
    op.drop_table("tokens")
    op.drop_table("projects")
