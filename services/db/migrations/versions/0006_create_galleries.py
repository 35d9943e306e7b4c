"""Create galleries of faces: identities, their embeddings by model version, and the images that are kept."""

import sqlalchemy as sa
from alembic import op

from services.db.types import CleanText, Document, UtcTime, short_id

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "galleries",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("gallery_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("deployment_id", sa.Text(), nullable=False),
        sa.Column("model_version_id", short_id(), nullable=False),
        sa.Column("keep_images", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_galleries_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_galleries")),
        sa.UniqueConstraint("project", "gallery_id", name=op.f("uq_galleries_project_gallery_id")),
        sa.UniqueConstraint("project", "request_id", name=op.f("uq_galleries_project_request_id")),
    )
    op.create_index(op.f("ix_galleries_project_create_time_id"), "galleries", ["project", "create_time", "id"])
    op.create_table(
        "identities",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("gallery_uid", short_id(), nullable=False),
        sa.Column("identity_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("display_name", CleanText(), nullable=False),
        sa.Column("image_count", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_uid"], ["galleries.id"], name=op.f("fk_identities_gallery_uid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint("gallery_uid", "identity_id", name=op.f("uq_identities_gallery_uid_identity_id")),
        sa.UniqueConstraint("gallery_uid", "request_id", name=op.f("uq_identities_gallery_uid_request_id")),
    )
    op.create_index(
        op.f("ix_identities_gallery_uid_create_time_id"), "identities", ["gallery_uid", "create_time", "id"]
    )
    op.create_index(op.f("ix_identities_gallery_uid_revision"), "identities", ["gallery_uid", "revision"])
    op.create_table(
        "embeddings",
        sa.Column("identity_uid", short_id(), nullable=False),
        sa.Column("model_version_id", short_id(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["identity_uid"], ["identities.id"], name=op.f("fk_embeddings_identity_uid"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_embeddings_model_version_id")
        ),
        sa.PrimaryKeyConstraint("identity_uid", "model_version_id", name=op.f("pk_embeddings")),
    )
    op.create_table(
        "identity_images",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("identity_uid", short_id(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("landmarks", Document(), nullable=False),
        sa.ForeignKeyConstraint(
            ["identity_uid"], ["identities.id"], name=op.f("fk_identity_images_identity_uid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity_images")),
        sa.UniqueConstraint("key", name=op.f("uq_identity_images_key")),
    )
    op.create_index(op.f("ix_identity_images_identity_uid"), "identity_images", ["identity_uid"])


def downgrade() -> None:
    for table in ("identity_images", "embeddings", "identities", "galleries"):
        op.drop_table(table)
