"""Add which generation of its deployment a replica failed at: one asked for again has not failed yet."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("replicas", sa.Column("generation", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("replicas", "generation")
